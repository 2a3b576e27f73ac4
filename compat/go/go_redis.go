// go-redis in its version 5: one connection, Sentinel.
package main

import (
	"fmt"
	"io/ioutil"
	"log"
	"sort"
	"time"

	"gopkg.in/redis.v5"
)

// snippet: go-redis, Sentinel
func sentinel() *redis.Client {
	return redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName:    name,
		SentinelAddrs: nodes,
		DialTimeout:   500 * time.Millisecond,
		ReadTimeout:   5 * time.Second,
		// It repeats at once, without a pause: more would not outlast an election.
		MaxRetries: 1,
	})
}

// end

func goRedis(mode string) {
	redis.SetLogger(log.New(ioutil.Discard, "", 0))
	var it *redis.Client
	switch mode {
	case "plain":
		it = redis.NewClient(&redis.Options{Addr: master})
	case "sentinel":
		it = sentinel()
	case "cluster":
		feature("cluster mode", func() {
			cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: nodes})
			must(cluster.ForEachMaster(func(one *redis.Client) error { return one.Ping().Err() }))
		})
		return
	}
	feature("basics, RESP2", func() {
		key := run + "b"
		must(it.Set(key, binary, 0).Err())
		value, err := it.Get(key).Bytes()
		must(err)
		same(value, binary)
		same(it.Get(key+"none").Err(), redis.Nil)
		same(it.Incr(key+"n").Val(), 1)
		same(it.IncrBy(key+"n", 5).Val(), 6)
		same(it.MGet(key+"n", key+"none").Val(), []interface{}{"6", nil})
		same(it.Del(key, key+"n").Val(), 2)
	})
	feature("8 MiB value, RESP2", func() {
		must(it.Set(run+"large", large, 0).Err())
		value, err := it.Get(run + "large").Bytes()
		must(err)
		same(value, large)
	})
	feature("pipeline, RESP2", func() {
		var replies []*redis.StringCmd
		_, err := it.Pipelined(func(pipe *redis.Pipeline) error {
			for number := 0; number < 500; number++ {
				key := fmt.Sprintf("%sp%d", run, number)
				pipe.Set(key, number, 0)
			}
			for number := 0; number < 500; number++ {
				key := fmt.Sprintf("%sp%d", run, number)
				replies = append(replies, pipe.Get(key))
			}
			return nil
		})
		must(err)
		for number, reply := range replies {
			same(reply.Val(), number)
		}
	})
	feature("MULTI and WATCH, RESP2", func() {
		key := run + "t"
		must(it.Set(key, 1, 0).Err())
		work := func(between func(), value int) func(*redis.Tx) error {
			return func(tx *redis.Tx) error {
				between()
				_, err := tx.Pipelined(func(pipe *redis.Pipeline) error {
					pipe.Set(key, value, 0)
					return nil
				})
				return err
			}
		}
		must(it.Watch(work(func() {}, 2), key))
		same(it.Get(key).Val(), "2")
		same(it.Watch(work(func() { must(it.Set(key, 3, 0).Err()) }, 4), key), redis.TxFailedErr)
		same(it.Get(key).Val(), "3")
	})
	feature("expiry, RESP2", func() {
		must(it.Set(run+"e", 1, 200*time.Millisecond).Err())
		expires(func() bool {
			err := it.Get(run + "e").Err()
			if err != redis.Nil {
				must(err)
			}
			return err == nil
		})
	})
	feature("scan, RESP2", func() {
		var keys, pairs []interface{}
		for number := 0; number < 300; number++ {
			key := fmt.Sprintf("%sscan%03d", run, number)
			keys = append(keys, key)
			pairs = append(pairs, key, 1)
		}
		must(it.MSet(pairs...).Err())
		var found []string
		each := it.Scan(0, run+"scan*", 17).Iterator()
		for each.Next() {
			found = append(found, each.Val())
		}
		must(each.Err())
		sort.Strings(found)
		same(found, keys)
	})
	if mode != "plain" {
		writeThroughAFailover(
			func(key, token string) error { return it.Append(key, token).Err() },
			func(key string) (string, error) { return it.Get(key).Result() },
		)
	}
}
