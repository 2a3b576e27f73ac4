// Jedis: one connection, Sentinel, cluster. Its first argument says which.

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.stream.Collectors;
import redis.clients.jedis.AbstractPipeline;
import redis.clients.jedis.Connection;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.JedisClientConfig;
import redis.clients.jedis.JedisCluster;
import redis.clients.jedis.JedisPooled;
import redis.clients.jedis.JedisSentineled;
import redis.clients.jedis.RedisProtocol;
import redis.clients.jedis.Response;
import redis.clients.jedis.Transaction;
import redis.clients.jedis.UnifiedJedis;
import redis.clients.jedis.params.ScanParams;
import redis.clients.jedis.params.SetParams;
import redis.clients.jedis.resps.ScanResult;
import redis.clients.jedis.util.JedisClusterCRC16;

class JedisClient {
    static final Set<HostAndPort> NODES =
            Arrays.stream(System.getenv("ARAKOON_NODES").split(",")).map(HostAndPort::from).collect(Collectors.toSet());
    static final HostAndPort MASTER = HostAndPort.from(System.getenv("ARAKOON_MASTER"));
    static final String NAME = System.getenv("ARAKOON_NAME");

    // snippet: Jedis, Sentinel and cluster
    static JedisClientConfig config(RedisProtocol protocol) {
        return DefaultJedisClientConfig.builder()
                .protocol(protocol)
                .connectionTimeoutMillis(500)
                .socketTimeoutMillis(5000)
                .build();
    }

    static JedisSentineled sentinel(RedisProtocol protocol) {
        return new JedisSentineled(NAME, config(protocol), NODES, config(protocol));
    }

    static JedisCluster cluster(RedisProtocol protocol) {
        int attempts = 50;
        return new JedisCluster(NODES, config(protocol), attempts);
    }
    // end

    public static void main(String[] words) throws Exception {
        String mode = words[0];
        for (int number : new int[] {2, 3}) {
            UnifiedJedis client = connect(mode, number == 2 ? RedisProtocol.RESP2 : RedisProtocol.RESP3);
            new JedisClient(client, number).features();
            client.close();
        }
        if (!mode.equals("plain")) {
            UnifiedJedis client = connect(mode, RedisProtocol.RESP3);
            new Writes().throughAFailover(client);
        }
        System.exit(0); // Threads that listen to Sentinels go on otherwise.
    }

    static UnifiedJedis connect(String mode, RedisProtocol protocol) {
        switch (mode) {
            case "sentinel": return sentinel(protocol);
            case "cluster": return cluster(protocol);
            default: return new JedisPooled(MASTER, config(protocol));
        }
    }

    final UnifiedJedis client;
    final int protocol;
    // One hash slot, for what cluster libraries refuse elsewhere.
    final String run;

    JedisClient(UnifiedJedis client, int protocol) {
        this.client = client;
        this.protocol = protocol;
        this.run = "{java-" + ProcessHandle.current().pid() + "-" + protocol + "}";
    }

    interface Test {
        void run() throws Exception;
    }

    void feature(String name, Test test) {
        String detail = "";
        boolean ok = true;
        try {
            test.run();
        } catch (Throwable error) {
            detail = error.toString();
            ok = false;
        }
        say("{\"feature\": %s, \"ok\": %b, \"detail\": %s}", text(name + ", RESP" + protocol), ok, text(detail));
    }

    void features() {
        feature("basics", this::basics);
        feature("8 MiB value", this::large);
        feature("pipeline", this::pipeline);
        feature("MULTI and WATCH", this::transaction);
        feature("expiry", this::expiry);
        feature("scan", this::scan);
    }

    void basics() {
        byte[] binary = new byte[259];
        for (int at = 0; at < 256; at++) binary[at] = (byte) at;
        binary[256] = '\r';
        binary[257] = '\n';
        byte[] key = (run + "b").getBytes(StandardCharsets.UTF_8);
        client.set(key, binary);
        same(Arrays.equals(client.get(key), binary), true);
        same(client.get(run + "none"), null);
        same(client.incr(run + "n"), 1L);
        same(client.incrBy(run + "n", 5), 6L);
        same(client.mget(run + "n", run + "none"), Arrays.asList("6", null));
        same(client.del(run + "b", run + "n"), 2L);
    }

    void large() {
        byte[] value = new byte[8 << 20];
        new java.util.Random(1).nextBytes(value);
        byte[] key = (run + "large").getBytes(StandardCharsets.UTF_8);
        client.set(key, value);
        same(Arrays.equals(client.get(key), value), true);
    }

    void pipeline() {
        List<Response<String>> replies = new ArrayList<>();
        try (AbstractPipeline pipe = client.pipelined()) {
            for (int number = 0; number < 500; number++) pipe.set(run + "p" + number, "" + number);
            for (int number = 0; number < 500; number++) replies.add(pipe.get(run + "p" + number));
            pipe.sync();
        }
        for (int number = 0; number < 500; number++) same(replies.get(number).get(), "" + number);
    }

    void transaction() {
        String key = run + "t";
        client.set(key, "1");
        same(attempt(key, "2", () -> {}), Arrays.asList("OK"));
        same(client.get(key), "2");
        same(attempt(key, "4", () -> client.set(key, "3")), null);
        same(client.get(key), "3");
    }

    List<Object> attempt(String key, String value, Runnable between) {
        Connection connection = own(key);
        try (Transaction transaction = new Transaction(connection, false, true)) {
            transaction.watch(key);
            between.run();
            transaction.multi();
            transaction.set(key, value);
            return transaction.exec();
        }
    }

    /** WATCH belongs to a connection: one to the master, or the one that a cluster has for the slot. */
    Connection own(String key) {
        if (client instanceof JedisCluster) {
            return ((JedisCluster) client).getConnectionFromSlot(JedisClusterCRC16.getSlot(key));
        }
        HostAndPort place = client instanceof JedisSentineled ? ((JedisSentineled) client).getCurrentMaster() : MASTER;
        return new Connection(place, config(protocol == 2 ? RedisProtocol.RESP2 : RedisProtocol.RESP3));
    }

    void expiry() throws Exception {
        client.set(run + "e", "1", SetParams.setParams().px(200));
        long begun = System.nanoTime();
        while (client.get(run + "e") != null) {
            same(System.nanoTime() - begun < 5_000_000_000L, true);
            Thread.sleep(20);
        }
    }

    void scan() {
        Set<String> keys = new TreeSet<>();
        List<String> pairs = new ArrayList<>();
        for (int number = 0; number < 300; number++) {
            keys.add(run + "scan" + number);
            Collections.addAll(pairs, run + "scan" + number, "1");
        }
        client.mset(pairs.toArray(new String[0]));
        List<String> found = new ArrayList<>();
        String cursor = "0";
        do {
            ScanResult<String> page = client.scan(cursor, new ScanParams().match(run + "scan*").count(17));
            found.addAll(page.getResult());
            cursor = page.getCursor();
        } while (!cursor.equals("0"));
        same(found.size(), 300);
        same(new TreeSet<>(found), keys);
    }

    static void same(Object left, Object right) {
        if (!java.util.Objects.equals(left, right)) {
            throw new AssertionError(String.format("%.80s instead of %.80s", left, right));
        }
    }

    static void say(String form, Object... values) {
        System.out.println(String.format(form, values));
        System.out.flush();
    }

    static String text(String text) {
        String cut = text.length() > 300 ? text.substring(0, 300) : text;
        return '"' + cut.replace("\\", "\\\\").replace("\"", "\\\"").replaceAll("[\\x00-\\x1f]", " ") + '"';
    }

    /** Appends tokens to one string, each once as far as we know: see compat/python/protocol.py. */
    static class Writes {
        volatile boolean stopped;
        final Map<String, Integer> errors = new TreeMap<>();

        void throughAFailover(UnifiedJedis client) throws Exception {
            Thread reader = new Thread(() -> {
                try {
                    while (System.in.read() != '\n') {}
                } catch (java.io.IOException ended) {
                    // The driver is gone.
                }
                stopped = true;
            });
            reader.setDaemon(true);
            reader.start();
            String key = "java-failover-" + ProcessHandle.current().pid();
            List<String> acknowledged = new ArrayList<>(), failed = new ArrayList<>();
            long last = System.nanoTime(), gap = 0;
            for (int number = 1; !stopped; number++) {
                String token = number + ";";
                try {
                    client.append(key, token);
                } catch (Exception error) {
                    failed.add(token);
                    errors.merge(error.getClass().getSimpleName(), 1, Integer::sum);
                    Thread.sleep(10);
                    continue;
                }
                acknowledged.add(token);
                gap = Math.max(gap, System.nanoTime() - last);
                last = System.nanoTime();
                if (acknowledged.size() == 50) say("{\"event\": \"writing\"}");
            }
            Map<String, Integer> found = new TreeMap<>();
            for (String token : client.get(key).split("(?<=;)")) found.merge(token, 1, Integer::sum);
            long lost = acknowledged.stream().filter(token -> !found.containsKey(token)).count();
            long applied = failed.stream().filter(found::containsKey).count();
            int twice = found.values().stream().mapToInt(count -> count - 1).sum();
            String shown = errors.entrySet().stream()
                    .map(it -> text(it.getKey()) + ": " + it.getValue()).collect(Collectors.joining(", "));
            say("{\"failover\": {\"acknowledged\": %d, \"lost\": %d, \"failed\": %d, \"failed_but_applied\": %d,"
                    + " \"applied_twice\": %d, \"gap_ms\": %d, \"errors\": {%s}}}",
                    acknowledged.size(), lost, failed.size(), applied, twice, gap / 1_000_000, shown);
        }
    }
}
