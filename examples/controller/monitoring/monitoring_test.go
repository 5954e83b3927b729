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

// parsed reads the rules as Prometheus does: their expressions and templates too.
func parsed(t *testing.T) (all []rulefmt.Rule) {
	t.Helper()
	groups, errs := rulefmt.ParseFile("rules.yaml", false, model.LegacyValidation, promQL, slog.New(slog.DiscardHandler))
	require.Empty(t, errs)
	for _, group := range groups.Groups {
		all = append(all, group.Rules...)
	}
	require.NotEmpty(t, all)
	return all
}

// queries are those of the dashboard. Every panel has a description.
func queries(t *testing.T) (all []string) {
	t.Helper()
	data, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var dashboard struct {
		Panels []struct {
			Title, Description string
			Targets            []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(data, &dashboard))
	for _, panel := range dashboard.Panels {
		require.NotEmpty(t, panel.Description, panel.Title)
		for _, target := range panel.Targets {
			all = append(all, target.Expr)
		}
	}
	require.NotEmpty(t, all)
	return all
}

// documented are the labels of each metric that the README has; a test of the controller
// holds it to the code.
func documented(t *testing.T) map[string][]string {
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

// labelsOf are those of the series that expression is about.
func labelsOf(t *testing.T, known map[string][]string, expression parser.Expr) (all []string) {
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

// Each expression is PromQL about metrics that exist, and uses labels that they have. Each
// metric is on the dashboard.
func TestExpressions(t *testing.T) {
	all := queries(t)
	known := documented(t)
	for name := range known {
		require.True(t, slices.ContainsFunc(all, func(query string) bool {
			return regexp.MustCompile(`\b` + name + `(_bucket)?\b`).MatchString(query)
		}), "%s is not on the dashboard", name)
	}
	known["kube_resourcequota"] = []string{"namespace", "resourcequota", "resource", "type"} // of kube-state-metrics
	for _, rule := range parsed(t) {
		all = append(all, rule.Expr)
		if rule.Record != "" {
			known[rule.Record] = []string{"namespace", "resourcequota", "resource"}
		}
	}
	for _, query := range all {
		t.Run(query, func(t *testing.T) {
			expression, err := promQL.ParseExpr(query)
			require.NoError(t, err)
			labelsOf(t, known, expression)
			parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
				switch node := node.(type) {
				case *parser.AggregateExpr:
					require.Subset(t, labelsOf(t, known, node.Expr), node.Grouping)
				case *parser.BinaryExpr:
					if node.VectorMatching != nil {
						require.Subset(t, labelsOf(t, known, node.LHS), node.VectorMatching.MatchingLabels)
						require.Subset(t, labelsOf(t, known, node.RHS), node.VectorMatching.MatchingLabels)
					}
				}
				return nil
			})
		})
	}
}

// Each alert has a severity, a summary and a description, which name only labels that it has.
func TestAnnotations(t *testing.T) {
	for _, rule := range parsed(t) {
		if rule.Alert == "" {
			continue
		}
		require.NotEmpty(t, rule.Labels["severity"], rule.Alert)
		require.NotEmpty(t, rule.Annotations["summary"], rule.Alert)
		require.NotEmpty(t, rule.Annotations["description"], rule.Alert)
		expression, err := promQL.ParseExpr(rule.Expr)
		require.NoError(t, err)
		var kept []string // by the first aggregation, which is that of the series that alert
		parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
			if aggregate, is := node.(*parser.AggregateExpr); is && kept == nil {
				kept = append([]string{}, aggregate.Grouping...)
			}
			if selector, is := node.(*parser.VectorSelector); is && strings.HasPrefix(selector.Name, "headroom:") {
				kept = []string{"namespace", "resourcequota", "resource"}
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
