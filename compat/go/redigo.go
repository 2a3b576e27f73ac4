// redigo, with FZambia/sentinel and mna/redisc, which are its Sentinel and its cluster mode.
package main

import (
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	finder "github.com/FZambia/sentinel"
	"github.com/gomodule/redigo/redis"
	"github.com/mna/redisc"
)

// snippet: redigo, Sentinel and cluster
var patience = []redis.DialOption{
	redis.DialConnectTimeout(500 * time.Millisecond),
	redis.DialReadTimeout(5 * time.Second),
	redis.DialWriteTimeout(5 * time.Second),
}

// end

// snippet: redigo with FZambia/sentinel
func sentinelPool() *redis.Pool {
	short := 500 * time.Millisecond
	sentinel := &finder.Sentinel{
		Addrs:      nodes,
		MasterName: name,
		Dial: func(address string) (redis.Conn, error) {
			return redis.DialTimeout("tcp", address, short, short, short)
		},
	}
	return &redis.Pool{
		MaxIdle: 8,
		Dial: func() (redis.Conn, error) {
			address, err := sentinel.MasterAddr()
			if err != nil {
				return nil, err
			}
			return redis.Dial("tcp", address, patience...)
		},
		TestOnBorrow: func(connection redis.Conn, idleSince time.Time) error {
			if time.Since(idleSince) > time.Second && !finder.TestRole(connection, "master") {
				return errors.New("not the master")
			}
			return nil
		},
	}
}

// end

// snippet: redigo with mna/redisc
// With a single master the library forgets all other nodes; so it begins anew when that one is gone.
type redigoCluster struct {
	mutex sync.Mutex
	now   *redisc.Cluster
}

func (c *redigoCluster) get() *redisc.Cluster {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.now == nil {
		c.now = &redisc.Cluster{
			StartupNodes: nodes,
			DialOptions:  patience,
			CreatePool: func(address string, options ...redis.DialOption) (*redis.Pool, error) {
				dial := func() (redis.Conn, error) { return redis.Dial("tcp", address, options...) }
				return &redis.Pool{MaxIdle: 8, Dial: dial}, nil
			},
		}
		c.now.Refresh()
	}
	return c.now
}

func (c *redigoCluster) lost(cluster *redisc.Cluster) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.now == cluster {
		cluster.Close()
		c.now = nil
	}
}

func (c *redigoCluster) do(words ...interface{}) (interface{}, error) {
	cluster := c.get()
	connection := cluster.Get()
	defer connection.Close()
	following, err := redisc.RetryConn(connection, 20, 50*time.Millisecond)
	if err != nil {
		return nil, err
	}
	reply, err := following.Do(words[0].(string), words[1:]...)
	if _, answered := err.(redis.Error); err != nil && !answered {
		c.lost(cluster)
	}
	return reply, err
}

// end

func redigo(mode string) {
	var get func() redis.Conn
	var do func(words ...interface{}) (interface{}, error)
	switch mode {
	case "plain":
		get = func() redis.Conn {
			connection, err := redis.Dial("tcp", master)
			must(err)
			return connection
		}
	case "sentinel":
		get = sentinelPool().Get
	case "cluster":
		cluster := &redigoCluster{}
		get = func() redis.Conn {
			connection := cluster.get().Get()
			must(redisc.BindConn(connection, run))
			return connection
		}
		do = cluster.do
	}
	if do == nil {
		do = func(words ...interface{}) (interface{}, error) {
			connection := get()
			defer connection.Close()
			return connection.Do(words[0].(string), words[1:]...)
		}
	}
	value := func(reply interface{}, err error) interface{} {
		must(err)
		return reply
	}
	feature("basics, RESP2", func() {
		key := run + "b"
		value(do("SET", key, binary))
		same(value(do("GET", key)), binary)
		same(value(do("GET", key+"none")), nil)
		same(value(do("INCR", key+"n")), 1)
		same(value(do("INCRBY", key+"n", 5)), 6)
		both, err := redis.ByteSlices(do("MGET", key+"n", key+"none"))
		must(err)
		same(both, [][]byte{[]byte("6"), nil})
		same(value(do("DEL", key, key+"n")), 2)
	})
	feature("8 MiB value, RESP2", func() {
		value(do("SET", run+"large", large))
		same(value(do("GET", run+"large")), large)
	})
	feature("pipeline, RESP2", func() {
		connection := get()
		defer connection.Close()
		for number := 0; number < 500; number++ {
			key := fmt.Sprintf("%sp%d", run, number)
			must(connection.Send("SET", key, number))
		}
		for number := 0; number < 500; number++ {
			must(connection.Send("GET", fmt.Sprintf("%sp%d", run, number)))
		}
		must(connection.Flush())
		for number := 0; number < 500; number++ {
			same(value(connection.Receive()), "OK")
		}
		for number := 0; number < 500; number++ {
			read, err := redis.Int(connection.Receive())
			must(err)
			same(read, number)
		}
	})
	feature("MULTI and WATCH, RESP2", func() {
		key := run + "t"
		connection := get()
		defer connection.Close()
		attempt := func(between func(), number int) interface{} {
			value(connection.Do("WATCH", key))
			between()
			must(connection.Send("MULTI"))
			must(connection.Send("SET", key, number))
			return value(connection.Do("EXEC"))
		}
		same(attempt(func() {}, 2), []string{"OK"})
		same(attempt(func() { value(do("SET", key, 3)) }, 4), nil)
		same(value(do("GET", key)), []byte("3"))
	})
	feature("expiry, RESP2", func() {
		value(do("SET", run+"e", 1, "PX", 200))
		expires(func() bool { return value(do("GET", run+"e")) != nil })
	})
	feature("scan, RESP2", func() {
		var keys []string
		words := []interface{}{"MSET"}
		for number := 0; number < 300; number++ {
			keys = append(keys, fmt.Sprintf("%sscan%03d", run, number))
			words = append(words, keys[number], 1)
		}
		value(do(words...))
		connection := get()
		defer connection.Close()
		var found []string
		for cursor := "0"; ; {
			page, err := redis.Values(connection.Do("SCAN", cursor, "MATCH", run+"scan*", "COUNT", 17))
			must(err)
			var some []string
			_, err = redis.Scan(page, &cursor, &some)
			must(err)
			found = append(found, some...)
			if cursor == "0" {
				break
			}
		}
		sort.Strings(found)
		same(found, keys)
	})
	if mode != "plain" {
		writeThroughAFailover(
			func(key, token string) error {
				_, err := do("APPEND", key, token)
				return err
			},
			func(key string) (string, error) { return redis.String(do("GET", key)) },
		)
	}
}
