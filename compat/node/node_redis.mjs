// node-redis: one connection, cluster, Sentinel.

import { createClient, createCluster, createSentinel, RESP_TYPES } from "redis";
import { binary, feature, large, master, name, nodes, run, same, sleep, writeThroughAFailover } from "./protocol.mjs";

const mode = process.argv[2];
const url = ({ host, port }) => `redis://${host}:${port}`;

// snippet: node-redis, Sentinel
const sentinel = (options) =>
  createSentinel({
    name,
    sentinelRootNodes: nodes,
    scanInterval: 200,
    maxCommandRediscovers: 100,
    nodeClientOptions: { socket: { connectTimeout: 500, reconnectStrategy: 50 }, ...options },
    sentinelClientOptions: { socket: { connectTimeout: 500 } },
  });
// end

// snippet: node-redis, cluster
const cluster = (options) =>
  createCluster({
    rootNodes: nodes.map((node) => ({ url: url(node) })),
    maxCommandRedirections: 100,
    topologyRefreshOnReconnectionAttemptStrategy: 200,
    defaults: { socket: { connectTimeout: 500, reconnectStrategy: 50 }, ...options },
    ...options,
  });
// end

const plain = (options) => createClient({ url: url(master), ...options });
const connect = async (options) => {
  const client = { plain, sentinel, cluster }[mode](options);
  client.on("error", () => {});
  await client.connect();
  return client;
};

for (const RESP of [2, 3]) {
  const client = await connect({ RESP });
  const bytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  const as = (what) => `${what}, RESP${RESP}`;
  await feature(as("basics"), async () => {
    const key = `{${run}}b`;
    await client.set(key, binary);
    same(await bytes.get(key), binary);
    same(await client.get(key + "none"), null);
    same([await client.incr(key + "n"), await client.incrBy(key + "n", 5)], [1, 6]);
    same(await client.mGet([key + "n", key + "none"]), ["6", null]);
    same(await client.del([key, key + "n"]), 2);
  });
  await feature(as("8 MiB value"), async () => {
    await client.set(`${run}large`, large);
    same(await bytes.get(`${run}large`), large);
  });
  await feature(as("pipeline"), async () => {
    const numbers = [...Array(500).keys()];
    // Commands of one tick are sent at once.
    await Promise.all(numbers.map((n) => client.set(`{${run}}p${n}`, String(n))));
    same(await Promise.all(numbers.map((n) => client.get(`{${run}}p${n}`))), numbers.map(String));
  });
  await feature(as("MULTI and WATCH"), async () => {
    const key = `{${run}}t`;
    await client.set(key, "1");
    same(await client.multi().set(key, "2").get(key).exec(), ["OK", "2"]);
    const conflict = async (own) => {
      await own.watch(key);
      // Not this client: it may have a single connection, which `own` is.
      const other = await connect({});
      await other.set(key, "3");
      other.destroy();
      try {
        await own.multi().set(key, "4").exec();
      } catch (error) {
        if (error.constructor.name === "WatchError") return;
        throw error;
      }
      throw new Error("the conflict was not seen");
    };
    if (mode === "sentinel") await client.use(conflict);
    else {
      // A cluster has no WATCH, because its connections are shared; one of a node's own has.
      const node = mode === "cluster" ? await client.nodeClient(client.masters[0]) : client;
      const own = await node.duplicate().connect();
      await conflict(own);
      own.destroy();
    }
    same(await client.get(key), "3");
  });
  await feature(as("expiry"), async () => {
    await client.set(`${run}e`, "1", { expiration: { type: "PX", value: 200 } });
    for (let tries = 0; (await client.get(`${run}e`)) !== null; tries++) {
      if (tries > 200) throw new Error("it does not expire");
      await sleep(20);
    }
  });
  await feature(as("scan"), async () => {
    const keys = [...Array(300).keys()].map((n) => `{${run}}scan${n}`);
    await client.mSet(keys.map((key) => [key, "1"]));
    let own = client;
    if (mode === "cluster") own = await client.nodeClient(client.masters[0]);
    const found = [];
    let cursor = "0";
    do {
      const reply = await own.scan(cursor, { MATCH: `{${run}}scan*`, COUNT: 17 });
      cursor = reply.cursor;
      found.push(...reply.keys);
    } while (cursor !== "0");
    same(found.toSorted(), keys.toSorted());
  });
  client.destroy();
}
if (mode !== "plain") {
  const client = await connect({});
  await writeThroughAFailover((key, token) => client.append(key, token), (key) => client.get(key));
  client.destroy();
}
process.exit(0);
