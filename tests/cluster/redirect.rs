//! What redis-cli sees at a node that is not the master.

use crate::harness::Cluster;

#[test]
fn replicas_name_the_master_and_redis_cli_follows() {
    let cluster = Cluster::start();
    let master = cluster.master();
    let replica = cluster.replica();
    let address = cluster.address(master);
    assert_eq!(cluster.redis_cli(master, &["set", "a", "1"]), "OK");
    // 15495 and 12182 are the hash slots of "a" and "foo" in Redis Cluster.
    for (command, slot) in
        [(&["set", "a", "2"][..], 15495), (&["get", "a"], 15495), (&["get", "foo"], 12182)]
    {
        assert_eq!(cluster.redis_cli(replica, command), format!("MOVED {slot} {address}"));
    }
    assert_eq!(cluster.redis_cli(replica, &["-c", "get", "a"]), "1");
    assert_eq!(cluster.redis_cli(replica, &["-c", "set", "a", "3"]), "OK");
    assert_eq!(cluster.redis_cli(master, &["get", "a"]), "3");
    assert_eq!(cluster.redis_cli(replica, &["ping"]), "PONG", "no need of a master");
}
