// Package kindcheck shows, on machines without Docker, that kind accepts the configuration kind.sh writes: kind's own
// module loads, completes and validates it and goes on to what it would ask of Docker. A stand-in for the docker
// command records that and then fails, so that nothing is ever started.
package kindcheck

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/kind/pkg/cluster"
)

const standIn = `#!/bin/sh
case "$1" in
  info) echo '{"CgroupVersion": "2", "CgroupDriver": "systemd", "MemoryLimit": true, "PidsLimit": true, "CPUShares": true}' ;;
  run) printf '%s\n' "$@" >"$(dirname "$0")/run"; echo "stand-in: no container is started" >&2; exit 1 ;;
esac
`

// create gives kind a configuration and returns its error and the arguments of its docker run ("" if it came not so far).
func create(t *testing.T, config string) (error, string) {
	t.Helper()
	directory := t.TempDir()
	if err := os.WriteFile(filepath.Join(directory, "docker"), []byte(standIn), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", directory+":"+os.Getenv("PATH"))
	provider := cluster.NewProvider(cluster.ProviderWithDocker())
	err := provider.Create("check", cluster.CreateWithRawConfig([]byte(config)),
		cluster.CreateWithKubeconfigPath(filepath.Join(directory, "kubeconfig")))
	arguments, _ := os.ReadFile(filepath.Join(directory, "run"))
	return err, string(arguments)
}

// rendered is what kind.sh writes for these three host ports.
func rendered(t *testing.T) string {
	t.Helper()
	command := exec.Command("bash", "-c",
		"set -eu; source ../../kind.sh; api_port=16443 kafka_port=19092 minio_port=19000 fill_in ../cluster.yaml")
	output, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(output)
}

func TestKindTurnsTheConfigurationIntoTheThreeLoopbackPorts(t *testing.T) {
	err, arguments := create(t, rendered(t))
	if err == nil || !strings.Contains(err.Error(), "docker run") {
		t.Fatalf("kind should get as far as docker run, but: %v", err)
	}
	for _, port := range []string{"127.0.0.1:16443:6443/TCP", "127.0.0.1:19092:30092/TCP", "127.0.0.1:19000:30900/TCP"} {
		if !strings.Contains(arguments, "--publish="+port) {
			t.Errorf("no --publish=%s in\n%s", port, arguments)
		}
	}
}

func TestKindRefusesTheConfigurationWithAMistakeInIt(t *testing.T) {
	config := rendered(t)
	for name, wrong := range map[string]string{
		"unknown field":        strings.Replace(config, "extraPortMappings", "extraPortMapping", 1),
		"port out of range":    strings.Replace(config, "19092", "190920", 1),
		"same host port twice": strings.Replace(config, "19092", "19000", 1),
		"unknown role":         strings.Replace(config, "control-plane", "control", 1),
	} {
		if err, arguments := create(t, wrong); err == nil || arguments != "" {
			t.Errorf("%s: not refused (%v)", name, err)
		}
	}
}
