package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// validity is that of every certificate: a test cluster is thrown away long before.
const validity = 365 * 24 * time.Hour

// users are the identities that get a client certificate and a kubeconfig, named by file.
func users(node string) map[string]pkix.Name {
	return map[string]pkix.Name{
		"admin":              {CommonName: "admin", Organization: []string{"system:masters"}},
		"kubelet":            {CommonName: "system:node:" + node, Organization: []string{"system:nodes"}},
		"controller-manager": {CommonName: "system:kube-controller-manager"},
		"scheduler":          {CommonName: "system:kube-scheduler"},
		"proxy":              {CommonName: "system:kube-proxy"},
		"coredns":            {CommonName: "system:coredns"},
	}
}

// writePKI fills a directory with an authority, the API server's certificate, the service account key and a
// kubeconfig for each user.
func writePKI(args []string) error {
	flags := flag.NewFlagSet("pki", flag.ContinueOnError)
	directory := flags.String("dir", "", "directory to fill")
	server := flags.String("server", "", "URL of the API server, written into the kubeconfigs")
	external := flags.String("external-server", "", "URL written into external.kubeconfig; the same as -server when empty")
	node := flags.String("node", "node", "name of the node")
	names := flags.String("san", "127.0.0.1,localhost", "comma-separated names and addresses of the API server")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *directory == "" || *server == "" {
		return errors.New("-dir and -server are needed")
	}
	if *external == "" {
		*external = *server
	}
	if err := os.MkdirAll(*directory, 0o700); err != nil {
		return err
	}
	authority, err := newAuthority(*directory)
	if err != nil {
		return err
	}
	if _, err := authority.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"}, strings.Split(*names, ",")); err != nil {
		return err
	}
	for user, name := range users(*node) {
		pair, err := authority.issue(user, name, nil)
		if err != nil {
			return err
		}
		if err := authority.writeKubeconfig(user, *server, pair); err != nil {
			return err
		}
		if user == "admin" {
			if err := authority.writeKubeconfig("external", *external, pair); err != nil {
				return err
			}
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	_, err = writeKey(filepath.Join(*directory, "service-account.key"), key)
	return err
}

type authority struct {
	directory string
	key       *ecdsa.PrivateKey
	parsed    *x509.Certificate
	encoded   []byte
}

type keyPair struct{ certificate, key []byte }

func newAuthority(directory string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := newTemplate(pkix.Name{CommonName: "streamagg-test-cluster"})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	encoded, err := writePEM(filepath.Join(directory, "ca.crt"), "CERTIFICATE", der)
	return &authority{directory, key, parsed, encoded}, err
}

func newTemplate(name pkix.Name) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	// An hour back: clocks of the machine and of a resumed virtual machine may differ.
	from := time.Now().Add(-time.Hour)
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      name,
		NotBefore:    from,
		NotAfter:     from.Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, nil
}

func (ca *authority) issue(file string, name pkix.Name, subjects []string) (keyPair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return keyPair{}, err
	}
	template, err := newTemplate(name)
	if err != nil {
		return keyPair{}, err
	}
	for _, subject := range subjects {
		if address := net.ParseIP(subject); address != nil {
			template.IPAddresses = append(template.IPAddresses, address)
		} else {
			template.DNSNames = append(template.DNSNames, subject)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.parsed, &key.PublicKey, ca.key)
	if err != nil {
		return keyPair{}, err
	}
	path := filepath.Join(ca.directory, file)
	certificate, err := writePEM(path+".crt", "CERTIFICATE", der)
	if err != nil {
		return keyPair{}, err
	}
	encoded, err := writeKey(path+".key", key)
	return keyPair{certificate, encoded}, err
}

func (ca *authority) writeKubeconfig(user, server string, pair keyPair) error {
	encode := base64.StdEncoding.EncodeToString
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: streamagg
  cluster: {server: %q, certificate-authority-data: %s}
users:
- name: %s
  user: {client-certificate-data: %s, client-key-data: %s}
contexts:
- name: streamagg
  context: {cluster: streamagg, user: %s}
current-context: streamagg
`, server, encode(ca.encoded), user, encode(pair.certificate), encode(pair.key), user)
	return os.WriteFile(filepath.Join(ca.directory, user+".kubeconfig"), []byte(text), 0o600)
}

func writeKey(path string, key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return writePEM(path, "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) ([]byte, error) {
	encoded := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	return encoded, os.WriteFile(path, encoded, 0o600)
}
