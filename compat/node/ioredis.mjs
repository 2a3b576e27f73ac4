// ioredis: one connection, cluster, Sentinel.

import { Redis, Cluster } from "ioredis";
import { binary, feature, large, master, name, nodes, run, same, sleep, writeThroughAFailover } from "./protocol.mjs";

const mode = process.argv[2];

// snippet: ioredis, Sentinel
const sentinel = () =>
  new Redis({
    sentinels: nodes,
    name,
    connectTimeout: 500,
    sentinelRetryStrategy: () => 50,
    retryStrategy: () => 50,
    // Not failoverDetector: an event that comes while it reconnects ends the client for good.
    reconnectOnError: (error) => /^(MOVED|CLUSTERDOWN|TRYAGAIN)/.test(error.message),
  });
// end

// snippet: ioredis, cluster
const cluster = () =>
  new Cluster(nodes, {
    clusterRetryStrategy: () => 50,
    retryDelayOnFailover: 100,
    retryDelayOnClusterDown: 100,
    maxRedirections: 50,
    redisOptions: { connectTimeout: 500 },
  });
// end

const plain = () => new Redis(master);

const client = { plain, sentinel, cluster }[mode]();
client.on("error", () => {});

await feature("basics, RESP2", async () => {
  const key = `{${run}}b`;
  await client.set(key, binary);
  same(await client.getBuffer(key), binary);
  same(await client.get(key + "none"), null);
  same([await client.incr(key + "n"), await client.incrby(key + "n", 5)], [1, 6]);
  same(await client.mget(key + "n", key + "none"), ["6", null]);
  same(await client.del(key, key + "n"), 2);
});
await feature("8 MiB value, RESP2", async () => {
  await client.set(`${run}large`, large);
  same(await client.getBuffer(`${run}large`), large);
});
await feature("pipeline, RESP2", async () => {
  const pipeline = client.pipeline();
  for (let n = 0; n < 500; n++) pipeline.set(`{${run}}p${n}`, n).get(`{${run}}p${n}`);
  const replies = await pipeline.exec();
  same(replies.filter((_, at) => at % 2).map(([, value]) => value), [...Array(500).keys()].map(String));
});
await feature("MULTI and WATCH, RESP2", async () => {
  const key = `{${run}}t`;
  await client.set(key, 1);
  // WATCH belongs to a connection, so a cluster client needs the one of the node.
  const own = mode === "cluster" ? client.nodes("master")[0] : client;
  const other = own.duplicate();
  await own.watch(key);
  same(await own.multi().set(key, 2).get(key).exec(), [[null, "OK"], [null, "2"]]);
  await own.watch(key);
  await other.set(key, 3);
  same(await own.multi().set(key, 4).exec(), null);
  same(await client.get(key), "3");
  other.disconnect();
});
await feature("expiry, RESP2", async () => {
  await client.set(`${run}e`, 1, "PX", 200);
  for (let tries = 0; (await client.get(`${run}e`)) !== null; tries++) {
    if (tries > 200) throw new Error("it does not expire");
    await sleep(20);
  }
});
await feature("scan, RESP2", async () => {
  const keys = [...Array(300).keys()].map((n) => `{${run}}scan${n}`);
  await client.mset(...keys.flatMap((key) => [key, 1]));
  const own = mode === "cluster" ? client.nodes("master")[0] : client;
  const found = [];
  for await (const some of own.scanStream({ match: `{${run}}scan*`, count: 17 })) found.push(...some);
  same(found.toSorted(), keys.toSorted());
});
if (mode !== "plain") await writeThroughAFailover((key, token) => client.append(key, token), (key) => client.get(key));
client.disconnect();
