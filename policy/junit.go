package policy

import (
	"encoding/xml"
	"fmt"
	"io"
)

// JUnit's XML, in the form that CI servers agree on: they show test cases by
// class name and name.

type junitSuites struct {
	XMLName  xml.Name   `xml:"testsuites"`
	Tests    int        `xml:"tests,attr"`
	Failures int        `xml:"failures,attr"`
	Suite    junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	File    string        `xml:"file,attr"`
	Line    int           `xml:"line,attr"`
	Failure *junitFailure `xml:"failure"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes the report for CI servers, a test case for each check.
func (r Report) JUnit(to io.Writer) error {
	all := junitSuites{Tests: len(r.Checks), Failures: r.Failed, Suite: junitSuite{Name: r.Suite, Tests: len(r.Checks), Failures: r.Failed}}
	for _, c := range r.Checks {
		j := junitCase{Class: c.Test, Name: fmt.Sprintf("%s %s %s", c.Principal, c.Method, c.Path), File: r.Suite, Line: c.Line}
		if !c.Passed() {
			j.Failure = &junitFailure{Message: fmt.Sprintf("want %s, got %s", c.Want, c.Got), Text: c.String()}
		}
		all.Suite.Cases = append(all.Suite.Cases, j)
	}
	if _, err := io.WriteString(to, xml.Header); err != nil {
		return fmt.Errorf("write JUnit report: %w", err)
	}
	e := xml.NewEncoder(to)
	e.Indent("", "  ")
	if err := e.Encode(all); err != nil {
		return fmt.Errorf("write JUnit report: %w", err)
	}
	_, err := io.WriteString(to, "\n")
	return err
}
