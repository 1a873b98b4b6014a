package manifests

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const (
	root   = "../../.."
	deploy = root + "/07-membership/deploy"
	port   = 7071
)

// objects reads a file of Kubernetes. Unknown and repeated fields are errors.
func objects(t *testing.T, name string) []any {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(deploy, "kubernetes", name))
	require.NoError(t, err)
	var all []any
	for i, part := range bytes.Split(text, []byte("\n---\n")) {
		object, err := decode(part)
		require.NoErrorf(t, err, "%s, part %d", name, i+1)
		all = append(all, object)
	}
	return all
}

func decode(text []byte) (any, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(text, &kind); err != nil {
		return nil, err
	}
	known := map[string]any{
		"v1/Service":                    &corev1.Service{},
		"policy/v1/PodDisruptionBudget": &policyv1.PodDisruptionBudget{},
		"apps/v1/StatefulSet":           &appsv1.StatefulSet{},
		"batch/v1/Job":                  &batchv1.Job{},
	}
	object := known[kind.APIVersion+"/"+kind.Kind]
	if object == nil {
		return nil, fmt.Errorf("%s/%s is not a kind of these files", kind.APIVersion, kind.Kind)
	}
	return object, strictly(text, object)
}

// strictly reads YAML as a server of Kubernetes does: upper and lower case differ, and
// unknown and repeated fields are errors.
func strictly(text []byte, into any) error {
	text, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return err
	}
	unknown, err := json.UnmarshalStrict(text, into)
	return errors.Join(append(unknown, err)...)
}

// one returns the only object of a type, or the one with a name.
func one[T any](t *testing.T, all []any, fits func(T) bool) T {
	t.Helper()
	var found []T
	for _, o := range all {
		if x, ok := o.(T); ok && (fits == nil || fits(x)) {
			found = append(found, x)
		}
	}
	require.Len(t, found, 1)
	return found[0]
}

func TestUnknownFieldsAreRefused(t *testing.T) {
	const text = "apiVersion: v1\nkind: Service\nmetadata: {name: kv}\nspec: {clusterIP: None}\n"
	_, err := decode([]byte(text))
	require.NoError(t, err)
	_, err = decode([]byte(strings.Replace(text, "clusterIP", "clusterIp", 1)))
	require.ErrorContains(t, err, `unknown field "spec.clusterIp"`)
	_, err = decode([]byte(text + "spec: {}\n"))
	require.ErrorContains(t, err, `key "spec" already set`)
	_, err = decode([]byte("apiVersion: v1\nkind: StatefulSet\n"))
	require.Error(t, err)
}

// What one object says of another is true.
func TestKubernetes(t *testing.T) {
	all := objects(t, "kv.yaml")
	set := one[*appsv1.StatefulSet](t, all, nil)
	budget := one[*policyv1.PodDisruptionBudget](t, all, nil)
	headless := one(t, all, func(s *corev1.Service) bool { return s.Spec.ClusterIP == corev1.ClusterIPNone })
	clients := one(t, all, func(s *corev1.Service) bool { return s.Spec.ClusterIP == "" })

	pods := labels.Set(set.Spec.Template.Labels)
	for _, selector := range []*metav1.LabelSelector{
		set.Spec.Selector, budget.Spec.Selector, set.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector,
		{MatchLabels: headless.Spec.Selector}, {MatchLabels: clients.Spec.Selector},
	} {
		s, err := metav1.LabelSelectorAsSelector(selector)
		require.NoError(t, err)
		require.False(t, s.Empty())
		require.True(t, s.Matches(pods), "%v does not match %v", s, pods)
	}
	require.Equal(t, headless.Name, set.Spec.ServiceName)
	require.True(t, headless.Spec.PublishNotReadyAddresses)
	require.EqualValues(t, 3, *set.Spec.Replicas)
	require.EqualValues(t, 1, set.Spec.Ordinals.Start)
	require.Equal(t, appsv1.ParallelPodManagement, set.Spec.PodManagementPolicy, "one server alone is never ready")
	require.Equal(t, 1, budget.Spec.MaxUnavailable.IntValue(), "two of three is a majority")

	pod := set.Spec.Template.Spec
	kv := pod.Containers[0]
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = true
	}
	for _, c := range set.Spec.VolumeClaimTemplates {
		volumes[c.Name] = true
	}
	for _, m := range kv.VolumeMounts {
		require.True(t, volumes[m.Name], "no volume %s", m.Name)
	}
	require.Len(t, kv.VolumeMounts, len(volumes))
	require.EqualValues(t, port, kv.Ports[0].ContainerPort)
	for _, p := range []*corev1.Probe{kv.LivenessProbe, kv.ReadinessProbe} {
		require.Equal(t, kv.Ports[0].Name, p.HTTPGet.Port.String())
		require.Equal(t, corev1.URISchemeHTTPS, p.HTTPGet.Scheme)
	}
	for _, s := range []*corev1.Service{headless, clients} {
		require.EqualValues(t, port, s.Spec.Ports[0].Port)
	}
	require.Equal(t, "https://kv-1.kv:7071,https://kv-2.kv:7071,https://kv-3.kv:7071", value(kv.Env, "KV_ENDPOINTS"))
	require.True(t, *pod.SecurityContext.RunAsNonRoot)
}

func value(env []corev1.EnvVar, name string) string {
	for _, e := range env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// The parts of the Job's pods are all seeds: there are as many pods as parts.
func TestCampaign(t *testing.T) {
	job := one[*batchv1.Job](t, objects(t, "campaign.yaml"), nil)
	require.Equal(t, batchv1.IndexedCompletion, *job.Spec.CompletionMode)
	args := job.Spec.Template.Spec.Containers[0].Args
	require.Contains(t, args, "--shard=/"+strconv.Itoa(int(*job.Spec.Completions)))
	require.Equal(t, corev1.RestartPolicyNever, job.Spec.Template.Spec.RestartPolicy)

	cmd := exec.CommandContext(t.Context(), program(t), "scenario", "minority-down", "--seeds=40", args[len(args)-1])
	cmd.Env = append(os.Environ(), "JOB_COMPLETION_INDEX=19")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, []string{"seed 20", "seed 40"}, regexp.MustCompile(`seed \d+`).FindAllString(string(out), -1))
}

func TestCompose(t *testing.T) {
	load := func(file string) ([]string, map[string][]string, error) {
		o, err := cli.NewProjectOptions([]string{file}, cli.WithEnv([]string{"CERTS=/certs"}), cli.WithProfiles([]string{"client"}))
		require.NoError(t, err)
		p, err := o.LoadProject(t.Context())
		if err != nil {
			return nil, nil, err
		}
		commands := map[string][]string{}
		for name, s := range p.Services {
			commands[name] = s.Command
			require.Equal(t, "kv", s.Image)
			require.FileExists(t, filepath.Join(s.Build.Context, s.Build.Dockerfile))
			require.NotEmpty(t, s.Volumes)
			for _, v := range s.Volumes {
				if v.Type == "volume" {
					require.Contains(t, p.Volumes, v.Source)
					require.Equal(t, name, v.Source, "a volume has the promises of one server")
				}
			}
		}
		return p.ServiceNames(), commands, nil
	}
	names, commands, err := load(filepath.Join(deploy, "compose.yaml"))
	require.NoError(t, err)
	require.Equal(t, []string{"client", "n1", "n2", "n3"}, names)
	for i, n := range names[1:] {
		starts(t, commands[n], i+1, n+":7071")
	}

	text, err := os.ReadFile(filepath.Join(deploy, "compose.yaml"))
	require.NoError(t, err)
	wrong := filepath.Join(t.TempDir(), "compose.yaml")
	require.NoError(t, os.WriteFile(wrong, bytes.Replace(text, []byte("read_only"), []byte("readonly"), 1), 0o644))
	_, _, err = load(wrong)
	require.ErrorContains(t, err, "readonly")
}

// A pod's arguments start its server, by the number that the pod has.
func TestPodsStart(t *testing.T) {
	kv := one[*appsv1.StatefulSet](t, objects(t, "kv.yaml"), nil).Spec.Template.Spec.Containers[0]
	require.Equal(t, "ID", kv.Env[0].Name)
	require.Equal(t, "metadata.labels['"+appsv1.PodIndexLabel+"']", kv.Env[0].ValueFrom.FieldRef.FieldPath)
	for _, id := range []int{2, 4} { // a member, and one that is not in the file
		var args []string
		for _, a := range kv.Args {
			args = append(args, strings.ReplaceAll(a, "$(ID)", strconv.Itoa(id)))
		}
		starts(t, args, id, fmt.Sprintf("kv-%d.kv:7071", id))
	}
}

func TestUnitStarts(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(deploy, "kv@.service"))
	require.NoError(t, err)
	line := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/kv (.*)$`).FindSubmatch(text)
	require.NotNil(t, line)
	starts(t, strings.Fields(strings.ReplaceAll(string(line[1]), "%i", "3")), 3, "n3:7071")
}

// systemd knows every setting of the unit, and finds that it protects the machine as
// well as the page says.
func TestUnit(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has systemd")
	}
	text, err := os.ReadFile(filepath.Join(deploy, "kv@.service"))
	require.NoError(t, err)
	check := func(text []byte, words ...string) (string, error) {
		unit := filepath.Join(t.TempDir(), "kv@.service")
		text = bytes.Replace(text, []byte("ExecStart=/usr/local/bin/kv "), []byte("ExecStart=/bin/true "), 1)
		require.NoError(t, os.WriteFile(unit, text, 0o644))
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", append(words, unit)...).CombinedOutput()
		return string(out), err
	}
	out, err := check(text, "verify")
	require.NoError(t, err, "%s", out)
	require.Empty(t, out)
	out, err = check(bytes.Replace(text, []byte("ProtectHome"), []byte("ProtectsHome"), 1), "verify")
	require.Contains(t, out, "ProtectsHome", "%v", err)
	out, err = check(text, "security", "--offline=true", "--threshold=20")
	require.NoError(t, err, "%s", out)
}

// starts runs a server with the arguments of a file, with other folders and another
// port, until it listens. address is the one for which it has a certificate.
func starts(t *testing.T, args []string, id int, address string) {
	t.Helper()
	kv, dir := program(t), t.TempDir()
	certs := []string{"certs", "--out", dir}
	for i := 1; i <= 3; i++ {
		certs = append(certs, fmt.Sprintf("n%d=%s", i, strings.Replace(address, strconv.Itoa(id), strconv.Itoa(i), 1)))
	}
	out, err := exec.CommandContext(t.Context(), kv, certs...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	if id > 3 {
		out, err = exec.CommandContext(t.Context(), kv, "certs", "--out", dir, fmt.Sprintf("n%d=%s", id, address)).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	// Another program may take the free port first.
	for log := ""; ; {
		if log, err = listens(t, kv, args, dir, id); err == nil || !strings.Contains(log, "in use") {
			require.NoError(t, err, log)
			return
		}
	}
}

// listens runs the server until it listens, and returns its log.
func listens(t *testing.T, kv string, args []string, dir string, id int) (string, error) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	listen := "--listen=" + free.Addr().String()
	replace := strings.NewReplacer("/etc/kv", dir, "/var/lib/kv", filepath.Join(dir, "data"), "--listen=0.0.0.0:7071", listen)
	var mine []string
	for _, a := range args {
		mine = append(mine, replace.Replace(a))
	}
	if !slices.Contains(mine, listen) {
		mine = append(mine, listen)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, kv, mine...)
	pipe, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var log strings.Builder
	found := false
	for lines := bufio.NewScanner(pipe); !found && lines.Scan(); {
		fmt.Fprintln(&log, lines.Text())
		found = strings.Contains(lines.Text(), fmt.Sprintf("n%d: listening", id))
	}
	cancel()
	ended := cmd.Wait()
	if found {
		return log.String(), nil // it was killed
	}
	return log.String(), fmt.Errorf("%s ended without listening: %w", strings.Join(mine, " "), ended)
}

var built string

// program builds stage 07 once.
func program(t *testing.T) string {
	t.Helper()
	if built == "" {
		dir, err := os.MkdirTemp("", "manifests-")
		require.NoError(t, err)
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "kv"), "./07-membership")
		cmd.Dir = root
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		built = filepath.Join(dir, "kv")
	}
	return built
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		_ = os.RemoveAll(filepath.Dir(built)) // it is in the temporary folder
	}
	os.Exit(code)
}

// The image is built from the same folder as the compose file says, and runs what the
// other files call.
func TestDockerfile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(deploy, "Dockerfile"))
	require.NoError(t, err)
	set := one[*appsv1.StatefulSet](t, objects(t, "kv.yaml"), nil)
	user := *set.Spec.Template.Spec.SecurityContext.RunAsUser
	require.Contains(t, string(text), fmt.Sprintf("\nUSER %d:%d\n", user, *set.Spec.Template.Spec.SecurityContext.RunAsGroup))
	require.Contains(t, string(text), fmt.Sprintf("\nEXPOSE %d\n", port))
	version := regexp.MustCompile(`(?m)^FROM golang:(\S+) AS build$`).FindSubmatch(text)
	require.NotNil(t, version)
	work, err := os.ReadFile(filepath.Join(root, "go.work"))
	require.NoError(t, err)
	require.Contains(t, string(work), "go "+string(version[1]))
}

// The image is built from all files of the program, and from no key: what Docker copies
// into a layer, anyone who has the layer can read.
func TestDockerIgnore(t *testing.T) {
	file, err := os.Open(filepath.Join(deploy, "Dockerfile.dockerignore"))
	require.NoError(t, err)
	patterns, err := ignorefile.ReadAll(file)
	require.NoError(t, errors.Join(err, file.Close()))
	ignored, err := patternmatcher.New(patterns)
	require.NoError(t, err)
	ignores := func(name string) bool {
		matches, err := ignored.MatchesOrParentMatches(name)
		require.NoError(t, err)
		return matches
	}

	list := func(args ...string) []string {
		cmd := exec.CommandContext(t.Context(), "go", append([]string{"list"}, args...)...)
		cmd.Dir = root
		out, err := cmd.Output()
		require.NoError(t, err)
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	top, err := filepath.Abs(root)
	require.NoError(t, err)
	needed := append([]string{filepath.Join(top, "go.work")}, list("-m", "-f", "{{.GoMod}}")...)
	needed = append(needed, list("-deps", "-f", `{{if .Module}}{{if .Module.Main}}{{range .GoFiles}}{{$.Dir}}/{{.}}
{{end}}{{range .EmbedFiles}}{{$.Dir}}/{{.}}
{{end}}{{end}}{{end}}`, "./07-membership")...)
	count := 0
	for _, name := range needed {
		if name == "" {
			continue
		}
		name, err = filepath.Rel(top, name)
		require.NoError(t, err)
		require.False(t, ignores(name), "the program is built from %s", name)
		count++
	}
	require.Greater(t, count, 100)

	// Git ignores what the commands of the pages leave at the top.
	text, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	require.NoError(t, err)
	left := regexp.MustCompile(`(?m)^/(.*?)/?$`).FindAllSubmatch(text, -1)
	require.Greater(t, len(left), 5)
	for _, name := range left {
		require.True(t, ignores(string(name[1])), "%s is in a layer", name[1])
	}
	for _, name := range []string{".git/config", "certs-compose/n1.key", "07-membership/.raftsteps/n1/log", "07-membership/certs/cluster.json", "07-membership/certs/n1.key"} {
		require.True(t, ignores(name), "%s is in a layer", name)
	}
	// With a wildcard, Docker would have to read all folders, and the page gives one with
	// keys to the user of the image.
	for _, p := range patterns {
		if strings.HasPrefix(p, "!") {
			require.NotContains(t, p, "*")
		}
	}
}

// rules is the form of a file of Prometheus' rules.
type rules struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []struct {
			Alert       string            `json:"alert"`
			Expr        string            `json:"expr"`
			For         string            `json:"for"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"rules"`
	} `json:"groups"`
}

// Every alert has an expression that can be read, and a row on the page.
func TestAlerts(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(deploy, "alerts.yaml"))
	require.NoError(t, err)
	page, err := os.ReadFile(filepath.Join(deploy, "README.md"))
	require.NoError(t, err)
	var file rules
	require.NoError(t, strictly(text, &file))
	require.NotEmpty(t, file.Groups)
	seen := map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			require.False(t, seen[r.Alert], r.Alert)
			seen[r.Alert] = true
			_, err := metricsql.Parse(r.Expr)
			require.NoError(t, err, r.Alert)
			if r.For != "" {
				_, err := time.ParseDuration(r.For)
				require.NoError(t, err, r.Alert)
			}
			require.Contains(t, []string{"warning", "critical"}, r.Labels["severity"], r.Alert)
			require.NotEmpty(t, r.Annotations["summary"], r.Alert)
			require.Contains(t, string(page), "\n| `"+r.Alert+"` | ")
		}
	}
	require.Len(t, regexp.MustCompile("(?m)^\\| `KV").FindAll(page, -1), len(seen), "the page has rows for alerts that are gone")
}
