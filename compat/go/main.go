// Go's clients, as Debian has them: the first argument says which, the second in which mode.
package main

import "os"

func main() {
	client := map[string]func(mode string){"go-redis": goRedis, "redigo": redigo}
	client[os.Args[1]](os.Args[2])
}
