// Package s3test runs a real S3 server for tests: versitygw on loopback, over
// a directory. A directory in that one is a bucket, a file in it an object.
package s3test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// The credentials of every Server.
const (
	AccessKey = "sbcast-test"
	SecretKey = "sbcast-test-secret"
)

// Program is the server's: SBCAST_VERSITYGW, or what make test-s3 has built. It
// is "" when there is none: tests are skipped then.
func Program() string {
	if path := os.Getenv("SBCAST_VERSITYGW"); path != "" {
		return path
	}
	dir, err := os.Getwd()
	for err == nil {
		path := filepath.Join(dir, ".cache", "bin", "versitygw")
		if _, statErr := os.Stat(path); statErr == nil {
			return path
		}
		if _, statErr := os.Stat(filepath.Join(dir, "tools")); statErr == nil || dir == filepath.Dir(dir) {
			return ""
		}
		dir = filepath.Dir(dir)
	}
	return ""
}

// Server is an S3 server that runs.
type Server struct {
	Root string // where its buckets are
	Addr string // host and port

	cmd *exec.Cmd
	log bytes.Buffer
}

// patience bounds the start of a server.
const patience = 20 * time.Second

// Start runs a server over root, which holds its buckets, on addr, or a free
// port when that is "". Stop ends it.
func Start(program, root, addr string) (*Server, error) {
	if addr == "" {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		addr = ln.Addr().String()
		ln.Close()
	}
	s := &Server{Root: root, Addr: addr}
	s.cmd = exec.Command(program, "--port", addr, "--access", AccessKey, "--secret", SecretKey, "--region", "us-east-1", "--quiet", "posix", root)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	dieWithParent(s.cmd)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		resp, err := client.Get(s.URL())
		if err == nil {
			resp.Body.Close()
			return s, nil
		}
		if time.Now().After(deadline) || s.cmd.Process.Signal(syscall.Signal(0)) != nil {
			s.Stop()
			return nil, errors.New("versitygw does not answer: " + s.log.String())
		}
	}
}

// URL is the endpoint of the server.
func (s *Server) URL() string { return "http://" + s.Addr }

// Stop kills the server. It may be called again.
func (s *Server) Stop() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// Uploads are the uploads under way in a bucket, as the server keeps them.
func (s *Server) Uploads(bucket string) ([]string, error) {
	all, err := filepath.Glob(filepath.Join(s.Root, bucket, ".sgwtmp", "multipart", "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("uploads under way: %w", err)
	}
	return all, nil
}
