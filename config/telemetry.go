package config

// Telemetry is the export of traces by OpenTelemetry.
type Telemetry struct {
	OTLPEndpoint string  `yaml:"otlp_endpoint" format:"url" default:"" empty:"true" doc:"where spans are sent by OTLP over HTTP, such as http://127.0.0.1:4318; \"\" sends none"`
	ServiceName  string  `yaml:"service_name" default:"portcullis" doc:"the resource's service.name"`
	SampleRatio  float64 `yaml:"sample_ratio" default:"1" doc:"part of the traces begun here that are recorded; those begun by the client say so themselves"`
}
