package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// connectionsMax bounds the connections one forwarded port serves at a time; further ones wait to be accepted.
const connectionsMax = 1024

const connectTimeoutSeconds = 10

// forward listens in the network namespace it was started in and dials in another one, so that a cluster
// living in a namespace of its own is reached on loopback and nowhere else.
//
//	forward NETNS_FILE LISTEN=TARGET...      e.g. /run/netns/x 127.0.0.1:16443=172.31.255.1:6443
func forward(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: node forward NETNS_FILE LISTEN=TARGET...")
	}
	dialer, err := newNamespaceDialer(args[0])
	if err != nil {
		return err
	}
	failed := make(chan error, len(args)-1)
	for _, pair := range args[1:] {
		listen, target, found := strings.Cut(pair, "=")
		if !found {
			return fmt.Errorf("%q is not LISTEN=TARGET", pair)
		}
		listener, err := net.Listen("tcp", listen)
		if err != nil {
			return err
		}
		go func() { failed <- serve(listener, dialer, target) }()
	}
	return <-failed
}

func serve(listener net.Listener, dialer *namespaceDialer, target string) error {
	slots := make(chan struct{}, connectionsMax)
	for {
		slots <- struct{}{}
		inside, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { <-slots }()
			relay(inside.(*net.TCPConn), dialer, target)
		}()
	}
}

// relay copies both directions until each side has closed its half.
func relay(client *net.TCPConn, dialer *namespaceDialer, target string) {
	defer client.Close()
	server, err := dialer.dial(target)
	if err != nil {
		fmt.Fprintf(os.Stderr, "dial %s: %v\n", target, err)
		return
	}
	defer server.Close()
	done := make(chan struct{}, 2)
	pipe := func(to, from *net.TCPConn) {
		if _, err := io.Copy(to, from); err != nil {
			// A reset on one side must reach the other, or it would wait for ever.
			to.Close()
		}
		to.CloseWrite()
		done <- struct{}{}
	}
	go pipe(server, client)
	go pipe(client, server)
	<-done
	<-done
}

// namespaceDialer makes sockets on one thread that has moved into the other namespace for good; a socket stays
// in the namespace it was made in, whichever thread connects and uses it later.
type namespaceDialer struct {
	requests chan chan<- newSocket
}

type newSocket struct {
	descriptor int
	err        error
}

func newNamespaceDialer(path string) (*namespaceDialer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	dialer := &namespaceDialer{requests: make(chan chan<- newSocket)}
	entered := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		entered <- err
		if err != nil {
			return
		}
		for answer := range dialer.requests {
			descriptor, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			answer <- newSocket{descriptor, err}
		}
	}()
	if err := <-entered; err != nil {
		return nil, fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return dialer, nil
}

// dial does by hand what net.Dialer does, because the latter may make its socket on another thread.
func (dialer *namespaceDialer) dial(target string) (*net.TCPConn, error) {
	address, err := net.ResolveTCPAddr("tcp4", target)
	if err != nil {
		return nil, err
	}
	answer := make(chan newSocket)
	dialer.requests <- answer
	socket := <-answer
	if socket.err != nil {
		return nil, socket.err
	}
	file := os.NewFile(uintptr(socket.descriptor), target)
	defer file.Close()
	// The send timeout bounds a blocking connect as well.
	timeout := unix.Timeval{Sec: connectTimeoutSeconds}
	if err := unix.SetsockoptTimeval(socket.descriptor, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		return nil, err
	}
	destination := &unix.SockaddrInet4{Port: address.Port}
	copy(destination.Addr[:], address.IP.To4())
	if err := unix.Connect(socket.descriptor, destination); err != nil {
		return nil, err
	}
	connection, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return connection.(*net.TCPConn), nil
}
