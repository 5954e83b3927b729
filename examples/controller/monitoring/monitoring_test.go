package monitoring

import (
	"encoding/json"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

var promQL = parser.NewParser(parser.Options{})

// rules reads the alerts as Prometheus does: their expressions and templates too.
func rules(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile("alerts.yaml", false, model.LegacyValidation, promQL, slog.New(slog.DiscardHandler))
	require.Empty(t, errs)
	require.Len(t, groups.Groups, 1)
	require.NotEmpty(t, groups.Groups[0].Rules)
	return groups.Groups[0].Rules
}

// queries are those of the dashboard.
func queries(t *testing.T) (all []string) {
	t.Helper()
	data, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	require.NoError(t, json.Unmarshal(data, &dashboard))
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all = append(all, target.Expr)
		}
	}
	require.NotEmpty(t, all)
	return all
}

// metrics are the labels of each metric that the README has; a test of the controller
// holds it to the code.
func metrics(t *testing.T) map[string][]string {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	found := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(headroom_[a-z_]+)` \\| ([a-z, ]*)\\|").FindAllStringSubmatch(string(readme), -1) {
		found[row[1]] = strings.FieldsFunc(row[2], func(r rune) bool { return r == ',' || r == ' ' })
	}
	require.NotEmpty(t, found)
	return found
}

// labels are those of the series that expression is about.
func labels(t *testing.T, known map[string][]string, expression parser.Expr) (all []string) {
	t.Helper()
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		if selector, is := node.(*parser.VectorSelector); is {
			name, bucket := strings.CutSuffix(selector.Name, "_bucket")
			require.Contains(t, known, name)
			if all = append(all, known[name]...); bucket {
				all = append(all, model.BucketLabel)
			}
			for _, matcher := range selector.LabelMatchers {
				if matcher.Name != model.MetricNameLabel {
					require.Contains(t, known[name], matcher.Name)
				}
			}
		}
		return nil
	})
	return all
}

// Each expression is PromQL about metrics that there are, and goes by labels that these
// have.
func TestExpressions(t *testing.T) {
	known := metrics(t)
	all := queries(t)
	for _, rule := range rules(t) {
		all = append(all, rule.Expr)
	}
	for _, query := range all {
		t.Run(query, func(t *testing.T) {
			expression, err := promQL.ParseExpr(query)
			require.NoError(t, err)
			labels(t, known, expression)
			parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
				switch node := node.(type) {
				case *parser.AggregateExpr:
					require.Subset(t, labels(t, known, node.Expr), node.Grouping)
				case *parser.BinaryExpr:
					if node.VectorMatching != nil {
						require.Subset(t, labels(t, known, node.LHS), node.VectorMatching.MatchingLabels)
						require.Subset(t, labels(t, known, node.RHS), node.VectorMatching.MatchingLabels)
					}
				}
				return nil
			})
		})
	}
}

// What an alert says of its labels, it has.
func TestAnnotations(t *testing.T) {
	for _, rule := range rules(t) {
		expression, err := promQL.ParseExpr(rule.Expr)
		require.NoError(t, err)
		var kept []string // by the first aggregation, which is that of the series that alert
		parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
			if aggregate, is := node.(*parser.AggregateExpr); is && kept == nil {
				kept = append([]string{}, aggregate.Grouping...)
			}
			return nil
		})
		for name, text := range rule.Annotations {
			for _, used := range regexp.MustCompile(`\$labels\.([a-z]+)`).FindAllStringSubmatch(text, -1) {
				require.True(t, slices.Contains(kept, used[1]), "%s: %s: %s", rule.Alert, name, used[1])
			}
		}
	}
}
