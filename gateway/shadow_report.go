package gateway

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// ShadowReport is the answer to GET /policy/shadow.
type ShadowReport struct {
	Candidate         string              `json:"candidate"`          // its file; "" without policy.shadow
	CandidateRevision string              `json:"candidate_revision"` // "" if it cannot be asked
	PolicyRevision    string              `json:"policy_revision"`    // of what runs
	Problem           string              `json:"problem,omitempty"`  // why the candidate is not asked
	Since             time.Time           `json:"since"`
	Same              uint64              `json:"same"`
	WouldAllow        uint64              `json:"would_allow"`
	WouldDeny         uint64              `json:"would_deny"`
	Unacknowledged    int                 `json:"unacknowledged"` // of Groups
	Groups            []DisagreementGroup `json:"groups"`         // the most frequent first
	Recent            []Disagreement      `json:"recent"`         // the latest 1,000, newest first
}

// DisagreementGroup is disagreements on the same grounds.
type DisagreementGroup struct {
	ID            string       `json:"id"`
	Direction     string       `json:"direction"`      // would_allow or would_deny
	RunningRule   string       `json:"running_rule"`   // "" for none
	CandidateRule string       `json:"candidate_rule"` // "" for none
	Count         uint64       `json:"count"`
	Acknowledged  bool         `json:"acknowledged"`
	Example       Disagreement `json:"example"`
}

// Disagreement is a request that the candidate would have decided otherwise.
type Disagreement struct {
	Time          time.Time `json:"time"`
	Group         string    `json:"group"`
	RequestID     string    `json:"request_id"`
	UserID        string    `json:"user_id,omitempty"`
	Authenticated bool      `json:"authenticated"`
	Roles         []string  `json:"roles"`
	Method        string    `json:"method"`
	Path          string    `json:"path"`
}

func (d disagreement) report() Disagreement {
	return Disagreement{Time: d.at.UTC(), Group: d.ID(), RequestID: d.requestID, UserID: d.userID, Authenticated: d.authenticated,
		Roles: d.roles, Method: d.method, Path: strings.ToValidUTF8(d.path, "\uFFFD")}
}

func (c *comparison) report() ShadowReport {
	if c == nil {
		return ShadowReport{Problem: "policy.shadow is not set", Groups: []DisagreementGroup{}, Recent: []Disagreement{}}
	}
	out := ShadowReport{
		Candidate: c.File, CandidateRevision: c.Policy.Revision(), PolicyRevision: c.running, Since: c.since.UTC(),
		Same: c.same.Load(), WouldAllow: c.allows.Load(), WouldDeny: c.denies.Load(), Unacknowledged: c.unacknowledged(),
		Groups: []DisagreementGroup{}, Recent: []Disagreement{},
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out.Problem = c.Problem
	for _, g := range c.sortedGroups() {
		group := c.groups[g]
		out.Groups = append(out.Groups, DisagreementGroup{ID: g.ID(), Direction: string(g.direction), RunningRule: g.running, CandidateRule: g.candidate,
			Count: group.count, Acknowledged: group.acknowledged, Example: group.example.report()})
	}
	for i := range c.recent {
		newest := (c.oldest + len(c.recent) - 1 - i) % len(c.recent)
		out.Recent = append(out.Recent, c.recent[newest].report())
	}
	return out
}

func (g *Gateway) getShadow(w http.ResponseWriter, _ *http.Request) {
	st := g.state.Load()
	report := st.shadow.report()
	report.PolicyRevision = st.policy.Revision()
	answerOperator(w, http.StatusOK, report)
}

// Acknowledgement is the body of POST /policy/shadow/acknowledge. The revision is
// that of the candidate the groups were seen of.
type Acknowledgement struct {
	CandidateRevision string   `json:"candidate_revision"`
	Groups            []string `json:"groups"`
}

func (g *Gateway) acknowledgeShadow(w http.ResponseWriter, r *http.Request) {
	var in Acknowledgement
	if err := json.UnmarshalRead(http.MaxBytesReader(w, r.Body, maxOwnBody), &in, json.RejectUnknownMembers(true)); err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			refuseOperator(w, http.StatusRequestEntityTooLarge, "the body is too large")
			return
		}
		refuseOperator(w, http.StatusBadRequest, "the body must be an object with candidate_revision and groups")
		return
	}
	c := g.state.Load().shadow
	switch {
	case c == nil || c.Policy == nil:
		refuseOperator(w, http.StatusConflict, "there is no candidate")
	case in.CandidateRevision != c.Policy.Revision():
		refuseOperator(w, http.StatusConflict, "the candidate is another by now: "+c.Policy.Revision())
	default:
		if unknown := c.acknowledge(in.Groups); unknown != nil {
			refuseOperator(w, http.StatusNotFound, "no such group: "+strings.Join(unknown, ", "))
			return
		}
		g.log.Info("disagreements with the shadow policy are acknowledged", "candidate", in.CandidateRevision, "groups", in.Groups)
		answerOperator(w, http.StatusOK, c.report())
	}
}
