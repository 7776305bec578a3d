// Package tap stands in for the TAP producer that runtime-tools' programs import and Debian does not
// package. It has the methods that they call, and nothing else.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// T numbers test lines and prints them.
type T struct {
	// Writer takes the output.
	Writer io.Writer

	printed *int
	todo    bool
}

// New returns a T that prints to standard output.
func New() *T { return &T{Writer: os.Stdout, printed: new(int)} }

// Todo returns a T whose lines carry the TODO directive, numbered together with t's.
func (t *T) Todo() *T { return &T{Writer: t.Writer, printed: t.printed, todo: true} }

// Header prints the version and, if n is known (above 0), the plan.
func (t *T) Header(n int) {
	t.printf("TAP version 13\n")
	if n > 0 {
		t.printf("1..%d\n", n)
	}
}

// AutoPlan prints the plan after the test lines: as many as there were.
func (t *T) AutoPlan() { t.printf("1..%d\n", *t.printed) }

// Ok prints the next test line.
func (t *T) Ok(passed bool, description string) {
	*t.printed++
	word, mark := "not ok", "-"
	if passed {
		word = "ok"
	}
	if t.todo {
		mark = "# TODO"
	}
	t.printf("%s %d %s %s\n", word, *t.printed, mark, description)
}

// Pass prints a test line that passed.
func (t *T) Pass(description string) { t.Ok(true, description) }

// Fail prints a test line that failed.
func (t *T) Fail(description string) { t.Ok(false, description) }

// Skip prints n test lines that were skipped.
func (t *T) Skip(n int, reason string) {
	for ; n > 0; n-- {
		*t.printed++
		t.printf("ok %d # SKIP %s\n", *t.printed, reason)
	}
}

// Diagnostic prints a comment, each of its lines marked as one.
func (t *T) Diagnostic(message string) {
	t.printf("# %s\n", strings.ReplaceAll(message, "\n", "\n# "))
}

// Diagnosticf prints a formatted comment.
func (t *T) Diagnosticf(format string, a ...interface{}) { t.Diagnostic(fmt.Sprintf(format, a...)) }

// YAML prints a value as an indented YAML block, in its JSON form.
func (t *T) YAML(value interface{}) error {
	text, err := json.MarshalIndent(value, "  ", "  ")
	if err != nil {
		return err
	}
	t.printf("  ---\n  %s\n  ...\n", text)
	return nil
}

func (t *T) printf(format string, a ...interface{}) { fmt.Fprintf(t.Writer, format, a...) }
