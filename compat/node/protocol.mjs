// What a client tells the driver: JSON lines. See compat/README.md.

import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";

export const nodes = process.env.ARAKOON_NODES.split(",").map((node) => {
  const [host, port] = node.split(":");
  return { host, port: Number(port) };
});
export const name = process.env.ARAKOON_NAME;
const [masterHost, masterPort] = process.env.ARAKOON_MASTER.split(":");
export const master = { host: masterHost, port: Number(masterPort) };
export const run = randomBytes(4).toString("hex");
export const binary = Buffer.from([...Array(256).keys(), 13, 10, 0]);
export const large = randomBytes(8 << 20);

export const say = (fields) => process.stdout.write(JSON.stringify(fields) + "\n");
export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export async function feature(name, test) {
  try {
    await test();
    say({ feature: name, ok: true, detail: "" });
  } catch (error) {
    say({ feature: name, ok: false, detail: `${error.name}: ${error.message}`.slice(0, 300) });
  }
}

export function same(left, right) {
  const equal = Buffer.isBuffer(left) && Buffer.isBuffer(right) ? left.equals(right) : JSON.stringify(left) === JSON.stringify(right);
  if (!equal) throw new Error(`${String(left).slice(0, 80)} instead of ${String(right).slice(0, 80)}`);
}

// A library may still be looking for the master.
async function patiently(ask) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      if (attempt === 100) throw error;
      await sleep(50);
    }
  }
}

// Appends tokens to one string, each once as far as we know: see compat/python/protocol.py.
export async function writeThroughAFailover(append, read) {
  let stopped = false;
  const input = createInterface({ input: process.stdin });
  input.on("line", () => (stopped = true));
  const key = `${run}failover`;
  const acknowledged = [], failed = [], errors = {}, times = [performance.now()];
  for (let number = 1; !stopped; number++) {
    const token = `${number};`;
    try {
      await append(key, token);
      acknowledged.push(String(number));
      times.push(performance.now());
      if (acknowledged.length === 50) say({ event: "writing" });
    } catch (error) {
      failed.push(String(number));
      const kind = String(error.message).split(" ")[0] || error.name;
      errors[kind] = (errors[kind] ?? 0) + 1;
      await sleep(10);
    }
  }
  input.close();
  const found = new Map();
  for (const token of String(await patiently(() => read(key))).split(";").slice(0, -1)) found.set(token, (found.get(token) ?? 0) + 1);
  const gaps = times.slice(1).map((time, at) => time - times[at]);
  say({
    failover: {
      acknowledged: acknowledged.length,
      lost: acknowledged.filter((token) => !found.has(token)).length,
      failed: failed.length,
      failed_but_applied: failed.filter((token) => found.has(token)).length,
      applied_twice: [...found.values()].reduce((sum, count) => sum + count - 1, 0),
      gap_ms: Math.round(Math.max(...gaps)),
      errors,
    },
  });
}
