package config

// Policy is who may do what.
type Policy struct {
	File        string      `yaml:"file" format:"file" required:"true" doc:"the rules, as Casbin CSV"`
	Shadow      string      `yaml:"shadow" format:"file" doc:"a candidate that is asked about every request beside the policy, to see what it would change; \"\" is none"`
	DecisionLog DecisionLog `yaml:"decision_log"`
}

// DecisionLog is a record of every decision, for policy explain and policy replay.
type DecisionLog struct {
	File         string  `yaml:"file" format:"file" doc:"where decisions are logged, one JSON line each: who did what and which rule decided; \"\" logs none"`
	MaxBytes     int64   `yaml:"max_bytes" default:"100MiB" min:"64KiB" doc:"size of the file, before it is put aside and a new one is begun"`
	Keep         int     `yaml:"keep" default:"5" min:"0" max:"1000" doc:"full files that are kept beside it, as FILE.1 and so on"`
	SampleAllows float64 `yaml:"sample_allows" default:"1" doc:"share of the permissions that are logged; denials always are"`
	Buffer       int     `yaml:"buffer" default:"8192" min:"16" max:"1048576" doc:"decisions that may wait for the disk, beyond which they are dropped and counted"`
}

func checkPolicy(p *Policy, wrong complain) {
	if p.Shadow != "" && p.Shadow == p.File {
		wrong("policy.shadow", "is the policy", "policy.file")
	}
	if p.DecisionLog.File != "" && p.DecisionLog.File == p.File {
		wrong("policy.decision_log.file", "is the policy", "policy.file")
	}
}
