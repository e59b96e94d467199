// Package ca is a private certificate authority in a directory: enough to
// secure a few machines with nothing else. Whoever has an authority already
// uses that; see the roles in docs/security.md.
package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The files of an authority. The key is all that has to stay secret.
const (
	certFile = "ca.pem"
	keyFile  = "ca-key.pem"
)

// How long certificates are good for. Daemons notice new files by themselves,
// so that short is no trouble; an authority cannot be changed as easily.
const (
	DefaultLife = 90 * 24 * time.Hour
	ownLife     = 10 * 365 * 24 * time.Hour
	// clockSkew is how far behind the clock of a machine may be.
	clockSkew = 5 * time.Minute
)

// Role is what a certificate is for.
type Role string

// The roles, each with what it may be used for in TLS.
const (
	RoleClient      Role = "client"      // to push
	RoleBroadcaster Role = "broadcaster" // to take, and to push on
	RoleReader      Role = "reader"      // to take
)

func (r Role) usages() ([]x509.ExtKeyUsage, error) {
	switch r {
	case RoleClient:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, nil
	case RoleBroadcaster:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, nil
	case RoleReader:
		return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, nil
	default:
		return nil, fmt.Errorf("unknown role %q, want client, broadcaster or reader", string(r))
	}
}

// Init makes an authority in dir, which must not have one.
func Init(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(dir, keyFile)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s has an authority already: what it has issued would be worth nothing with another", dir)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	host, _ := os.Hostname()
	t := template(strings.TrimSpace("sbcast CA "+host), ownLife)
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return write(dir, certFile, keyFile, t, t, key, key)
}

// Issue makes a certificate for name in dir, NAME.pem, and its key,
// NAME-key.pem. Hosts are the names and addresses that a daemon is reached by.
// One that was issued before under the same name is replaced.
func Issue(dir, name string, role Role, hosts []string, life time.Duration) error {
	usages, err := role.usages()
	if err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	if role != RoleClient && len(hosts) == 0 {
		return fmt.Errorf("a %s is reached by a name or an address, which its certificate has to have: --host %s", role, name)
	}
	ca, caKey, err := open(dir)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := template(name, min(life, time.Until(ca.NotAfter)))
	t.Subject.OrganizationalUnit = []string{string(role)}
	t.KeyUsage, t.ExtKeyUsage = x509.KeyUsageDigitalSignature, usages
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return write(dir, name+".pem", name+"-key.pem", t, ca, key, caKey)
}

// checkName keeps names to what is one file in dir, and not the authority's.
func checkName(name string) error {
	odd := strings.ContainsFunc(name, func(r rune) bool {
		return r != '-' && r != '_' && r != '.' && r != '@' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
	if name == "" || len(name) > 64 || odd || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") {
		return fmt.Errorf("%q is no name for a certificate: want up to 64 letters, digits and . _ @ -", name)
	}
	if name == "ca" || name == "ca-key" || strings.HasSuffix(name, "-key") {
		return fmt.Errorf("the name %q would hide the file of a key", name)
	}
	return nil
}

func template(name string, life time.Duration) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{ // without a serial number x509 takes a random one
		Subject:   pkix.Name{CommonName: name},
		NotBefore: now.Add(-clockSkew), NotAfter: now.Add(life),
	}
}

func open(dir string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	cert, err := block(dir, certFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s has no authority: sbcast ca init %s makes one", dir, dir)
	}
	if err != nil {
		return nil, nil, err
	}
	key, err := block(dir, keyFile)
	if err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(cert)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", filepath.Join(dir, certFile), err)
	}
	k, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", filepath.Join(dir, keyFile), err)
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("%s is not a key that sbcast has made", filepath.Join(dir, keyFile))
	}
	return ca, ec, nil
}

// block is the first PEM block of a file.
func block(dir, name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	p, _ := pem.Decode(b)
	if p == nil {
		return nil, fmt.Errorf("%s is not in PEM form", filepath.Join(dir, name))
	}
	return p.Bytes, nil
}

// write signs t and puts it and its key into dir, the key first: a daemon that
// looks in between finds a pair that does not fit, and keeps what it has.
func write(dir, certName, keyName string, t, parent *x509.Certificate, key, by *ecdsa.PrivateKey) error {
	cert, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, by)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(dir, keyName), "PRIVATE KEY", der, 0o600); err != nil {
		return err
	}
	return replace(filepath.Join(dir, certName), "CERTIFICATE", cert, 0o644)
}

func replace(path, kind string, der []byte, mode fs.FileMode) error {
	fresh := path + ".new"
	_ = os.Remove(fresh)
	f, err := os.OpenFile(fresh, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(fresh, path)
}
