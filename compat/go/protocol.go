// What a client tells the driver: JSON lines. See compat/README.md.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

var (
	nodes  = strings.Split(os.Getenv("ARAKOON_NODES"), ",")
	master = os.Getenv("ARAKOON_MASTER")
	name   = os.Getenv("ARAKOON_NAME")
	// One hash slot, for what cluster libraries refuse elsewhere.
	run    = fmt.Sprintf("{go-%d}", os.Getpid())
	binary = makeBinary()
	large  = makeLarge()
)

func makeBinary() []byte {
	var all []byte
	for value := 0; value < 256; value++ {
		all = append(all, byte(value))
	}
	return append(all, 13, 10, 0)
}

func makeLarge() []byte {
	value := make([]byte, 8<<20)
	rand.Read(value)
	return value
}

func say(line interface{}) {
	text, _ := json.Marshal(line)
	fmt.Println(string(text))
}

type object map[string]interface{}

// feature reports whether a test holds; both libraries speak RESP2 alone.
func feature(name string, test func()) {
	defer func() {
		detail := recover()
		said := ""
		if detail != nil {
			said = fmt.Sprintf("%.300v", detail)
		}
		say(object{"feature": name, "ok": detail == nil, "detail": said})
	}()
	test()
}

// must ends a feature's test with an error.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func same(left, right interface{}) {
	one, isBytes := left.([]byte)
	other, areBytes := right.([]byte)
	equal := isBytes && areBytes && bytes.Equal(one, other)
	if !equal && fmt.Sprint(left) != fmt.Sprint(right) {
		panic(fmt.Sprintf("%.80v instead of %.80v", left, right))
	}
}

func expires(exists func() bool) {
	begun := time.Now()
	for exists() {
		if time.Since(begun) > 5*time.Second {
			panic("it does not expire")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// writeThroughAFailover appends tokens to one string, each once as far as we know. So afterwards the
// string says what was applied, and what the library applied twice.
func writeThroughAFailover(write func(key, token string) error, read func(key string) (string, error)) {
	var stopped int32
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		atomic.StoreInt32(&stopped, 1)
	}()
	key := run + "failover"
	var acknowledged, failed []string
	errors := map[string]int{}
	last, gap := time.Now(), time.Duration(0)
	for number := 1; atomic.LoadInt32(&stopped) == 0; number++ {
		token := fmt.Sprintf("%d;", number)
		if err := write(key, token); err != nil {
			failed = append(failed, token)
			errors[kind(err)]++
			time.Sleep(10 * time.Millisecond)
			continue
		}
		acknowledged = append(acknowledged, token)
		if since := time.Since(last); since > gap {
			gap = since
		}
		last = time.Now()
		if len(acknowledged) == 50 {
			say(object{"event": "writing"})
		}
	}
	text, err := read(key)
	for tries := 0; err != nil && tries < 100; tries++ {
		time.Sleep(50 * time.Millisecond)
		text, err = read(key)
	}
	must(err)
	found := map[string]int{}
	for _, token := range strings.SplitAfter(text, ";") {
		if token != "" {
			found[token]++
		}
	}
	lost, applied, twice := 0, 0, 0
	for _, token := range acknowledged {
		if found[token] == 0 {
			lost++
		}
	}
	for _, token := range failed {
		if found[token] > 0 {
			applied++
		}
	}
	for _, count := range found {
		twice += count - 1
	}
	say(object{"failover": object{
		"acknowledged": len(acknowledged), "lost": lost, "failed": len(failed),
		"failed_but_applied": applied, "applied_twice": twice,
		"gap_ms": gap.Milliseconds(), "errors": errors,
	}})
}

// kind is an error without ports, which differ from one connection to the next.
func kind(err error) string {
	if operation, is := err.(*net.OpError); is {
		return operation.Op + ": " + operation.Err.Error()
	}
	return fmt.Sprintf("%.60s", err.Error())
}
