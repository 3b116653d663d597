// Judges aggregations and checkpoints as Argo CD and Flux do: Argo CD's own Lua runtime on the text of config/argocd/argocd-cm.yaml, and
// the kstatus library (Flux, `kubectl wait`-like tools). The objects and requests come from the audit log of a real API
// server at which a real operator worked (e2e/cluster/apiserver.sh start NAME --audit), or from a file of documents.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

const usage = `usage: gitops states ARGOCD_CM OBJECTS      every document of OBJECTS against the verdicts in its annotation
       gitops law ARGOCD_CM AUDIT_LOG      every object an operator wrote; prints the states that were seen
       gitops rights RIGHTS AUDIT_LOG USER [UNSEEN...]
                                           every granted verb ("GROUP RESOURCE VERB") was used by USER, but for those
                                           UNSEEN; and nothing was refused to it`

// verdict of both, and of Flux' library: "Healthy Current".
type verdict struct{ argo, flux string }

var passed, failed int

func check(holds bool, format string, arguments ...any) {
	if holds {
		passed++
		return
	}
	failed++
	fmt.Printf("FAIL "+format+"\n", arguments...)
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "gitops:", err)
		os.Exit(1)
	}
	return value
}

const aggregation, checkpoint = "StreamAggregation", "StreamCheckpoint"

// overrides reads the customizations as Argo CD does: the health text as it is, actions as a YAML document.
func overrides(path string) lua.VM {
	var config struct{ Data map[string]string }
	err := yaml.UnmarshalStrict(must(os.ReadFile(path)), &config)
	if err != nil && !strings.Contains(err.Error(), "unknown field") {
		must(0, err)
	}
	text := func(what, kind string) string {
		text := config.Data["resource.customizations."+what+".streamagg.io_"+kind]
		if text == "" {
			must(0, fmt.Errorf("%s: %s of %s is missing", path, what, kind))
		}
		return text
	}
	return lua.VM{ResourceOverrides: map[string]v1alpha1.ResourceOverride{
		"streamagg.io/StreamAggregation": {HealthLua: text("health", aggregation), Actions: text("actions", aggregation)},
		"streamagg.io/StreamCheckpoint":  {HealthLua: text("health", checkpoint)},
	}}
}

func judge(vm lua.VM, object *unstructured.Unstructured) verdict {
	script, _, err := vm.GetHealthScript(object)
	must(0, err)
	health := must(vm.ExecuteHealthLua(object, script))
	result := must(status.Compute(object))
	return verdict{string(health.Status), string(result.Status)}
}

// expected by the contract of docs/operator.md.
func expected(object *unstructured.Unstructured) verdict {
	conditions, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	held := map[string]string{}
	for _, entry := range conditions {
		condition := entry.(map[string]any)
		if condition["status"] == "True" {
			held[condition["type"].(string)] = condition["reason"].(string)
		}
	}
	observed, _, _ := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	switch {
	case object.GetDeletionTimestamp() != nil:
		return verdict{"Progressing", "Terminating"}
	case observed != object.GetGeneration():
		return verdict{"Progressing", "InProgress"}
	case held["Stalled"] != "":
		return verdict{"Degraded", "Failed"}
	case held["Reconciling"] != "":
		return verdict{"Progressing", "InProgress"}
	case held["Ready"] == "Suspended":
		return verdict{"Suspended", "Current"}
	case held["Ready"] != "" && held["Degraded"] != "":
		return verdict{"Degraded", "Current"}
	case held["Ready"] != "":
		return verdict{"Healthy", "Current"}
	default:
		return verdict{"Progressing", "InProgress"}
	}
}

// actions runs every action that Argo CD would offer on the object, and looks at what it changes.
func actions(vm lua.VM, object *unstructured.Unstructured) {
	if object.GetKind() != aggregation {
		return
	}
	scripts := must(vm.GetResourceActionDiscovery(object))
	offered := map[string]bool{}
	for _, action := range must(vm.ExecuteResourceActionDiscovery(object, scripts)) {
		offered[action.Name] = !action.Disabled
	}
	suspended, _, _ := unstructured.NestedBool(object.Object, "spec", "suspend")
	check(offered["suspend"] == !suspended && offered["resume"] == suspended && offered["restart"] == !suspended,
		"%s: suspended is %v, but %v are offered", object.GetName(), suspended, offered)
	_, kept, _ := unstructured.NestedMap(object.Object, "spec", "state", "checkpoints")
	check(offered["checkpoint"] == (kept && !suspended), "%s: checkpoint is offered: %v", object.GetName(), offered)
	made := must(vm.ExecuteResourceAction(object.DeepCopy(), must(vm.GetResourceAction(object, "checkpoint")).ActionLua, nil))
	of, _, _ := unstructured.NestedString(made[0].UnstructuredObj.Object, "spec", "aggregation")
	check(len(made) == 1 && made[0].K8SOperation == lua.CreateOperation && made[0].UnstructuredObj.GetKind() == checkpoint &&
		made[0].UnstructuredObj.GetNamespace() == object.GetNamespace() && of == object.GetName(),
		"%s: action checkpoint makes %v", object.GetName(), made[0].UnstructuredObj)
	nonce, _, _ := unstructured.NestedInt64(object.Object, "spec", "restartNonce")
	for _, name := range []string{"suspend", "resume", "restart"} {
		wanted := object.DeepCopy()
		switch name {
		case "restart":
			must(0, unstructured.SetNestedField(wanted.Object, nonce+1, "spec", "restartNonce"))
		default:
			must(0, unstructured.SetNestedField(wanted.Object, name == "suspend", "spec", "suspend"))
		}
		action := must(vm.GetResourceAction(object, name))
		changed := must(vm.ExecuteResourceAction(object.DeepCopy(), action.ActionLua, nil))
		check(len(changed) == 1 && string(must(json.Marshal(changed[0].UnstructuredObj))) == string(must(json.Marshal(wanted))),
			"%s: action %s changes more or less than its field", object.GetName(), name)
	}
}

const annotation = "streamagg.io/expected"

func states(vm lua.VM, path string) {
	for _, document := range strings.Split(string(must(os.ReadFile(path))), "\n---\n") {
		object := &unstructured.Unstructured{}
		must(0, json.Unmarshal(must(yaml.YAMLToJSON([]byte(document))), object))
		found := judge(vm, object)
		wanted := object.GetAnnotations()[annotation]
		check(found.argo+" "+found.flux == wanted, "%s: %v, expected %s", object.GetName(), found, wanted)
		actions(vm, object)
	}
}

type request struct {
	Verb           string
	Level          string
	User           struct{ Username string }
	ResponseStatus struct{ Code int }
	RequestURI     string
	ObjectRef      struct{ APIGroup, Resource, Subresource, Name, Namespace string }
	ResponseObject json.RawMessage
	Annotations    map[string]string
}

func audit(path string, each func(request)) {
	file := must(os.Open(path))
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var entry request
		must(0, json.Unmarshal(lines.Bytes(), &entry))
		each(entry)
	}
	must(0, lines.Err())
}

func law(vm lua.VM, path string) {
	seen := map[string]int{}
	audit(path, func(entry request) {
		if entry.ObjectRef.APIGroup != "streamagg.io" || len(entry.ResponseObject) == 0 {
			return
		}
		object := &unstructured.Unstructured{}
		kind := func() bool { return object.GetKind() == aggregation || object.GetKind() == checkpoint }
		if object.UnmarshalJSON(entry.ResponseObject) != nil || !kind() {
			return
		}
		found, wanted := judge(vm, object), expected(object)
		check(found == wanted, "%s/%s: %v, expected %v: %s", object.GetNamespace(), object.GetName(), found, wanted, entry.ResponseObject)
		state := fmt.Sprint(object.GetKind(), " ", found)
		if seen[state]++; seen[state] == 1 {
			actions(vm, object)
		}
	})
	for state, count := range seen {
		fmt.Println("seen", state, count)
	}
	// Otherwise the log is of a run that shows nothing.
	for _, state := range []verdict{{"Healthy", "Current"}, {"Progressing", "InProgress"}, {"Degraded", "Failed"},
		{"Suspended", "Current"}, {"Progressing", "Terminating"}} {
		check(seen[fmt.Sprint(aggregation, " ", state)] > 0, "no aggregation was %v", state)
		// A checkpoint is not suspended: it waits.
		check(seen[fmt.Sprint(checkpoint, " ", state)] > 0 || state.argo == "Suspended", "no checkpoint was %v", state)
	}
}

func rights(path, log, user string, unseen []string) {
	excused := map[string]bool{}
	for _, right := range unseen {
		excused[right] = true
	}
	var rules []struct{ APIGroups, Resources, Verbs []string }
	must(0, yaml.Unmarshal(must(os.ReadFile(path)), &rules))
	used, refused := map[string]bool{}, map[string]bool{}
	audit(log, func(entry request) {
		if entry.User.Username != user || entry.ObjectRef.Resource == "" {
			return
		}
		resource := entry.ObjectRef.Resource
		if entry.ObjectRef.Subresource != "" {
			resource += "/" + entry.ObjectRef.Subresource
		}
		right := entry.ObjectRef.APIGroup + " " + resource + " " + entry.Verb
		used[right] = true
		// Server-side apply of what is not there needs both verbs.
		if entry.Verb == "patch" && entry.ResponseStatus.Code == 201 {
			used[strings.TrimSuffix(right, "patch")+"create"] = true
		}
		// Other refusals are quotas, terminating namespaces and the like.
		if entry.Annotations["authorization.k8s.io/decision"] == "forbid" {
			refused[right] = true
		}
	})
	for _, rule := range rules {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				right := rule.APIGroups[0] + " " + resource + " " + verb
				check(used[right] || excused[right], "granted and never used: %s", right)
			}
		}
	}
	names := make([]string, 0, len(refused))
	for right := range refused {
		names = append(names, right)
	}
	sort.Strings(names)
	check(len(names) == 0, "refused to %s: %s", user, strings.Join(names, ", "))
}

func main() {
	arguments := os.Args[1:]
	switch {
	case len(arguments) == 3 && arguments[0] == "states":
		states(overrides(arguments[1]), arguments[2])
	case len(arguments) == 3 && arguments[0] == "law":
		law(overrides(arguments[1]), arguments[2])
	case len(arguments) >= 4 && arguments[0] == "rights":
		rights(arguments[1], arguments[2], arguments[3], arguments[4:])
	default:
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	fmt.Printf("gitops %s: %d passed, %d failed\n", arguments[0], passed, failed)
	if failed > 0 || passed == 0 {
		os.Exit(1)
	}
}
