//! Requests whose outcome the client does not know.

use std::sync::{Arc, RwLock};

use millrace_faults::{Cluster, Load, LoadOptions, Seed, check, tcp_proxy::TcpProxy};

use crate::{RECOVERY_BOUND, SOME_COMMANDS, options};

#[tokio::test]
async fn connections_break_between_request_and_answer() {
    let seed = Seed::new("cut");
    let cluster = Cluster::start(options()).await;
    let mut proxies = Vec::new();
    for (number, process) in cluster.commands.iter().enumerate() {
        let proxy = TcpProxy::start(process.port(), seed.part(100 + number as u64)).await;
        proxy.cut(10, 25);
        proxies.push(proxy);
    }
    let targets = proxies.iter().map(TcpProxy::url).collect();
    let options = LoadOptions {
        targets: Some(Arc::new(RwLock::new(targets))),
        ..LoadOptions::default()
    };
    let load = Load::start(&cluster, &seed, &options);
    load.wait_for(150, 2 * RECOVERY_BOUND).await;
    for proxy in &proxies {
        proxy.cut(0, 0);
    }
    load.wait_for(SOME_COMMANDS, RECOVERY_BOUND).await;
    let history = load.stop().await;
    let lost: u64 = proxies.iter().map(TcpProxy::lost_answers).sum();
    assert!(
        lost > 10,
        "only {lost} answers were lost: nothing was shown"
    );
    assert!(
        history.replayed > 10,
        "only {} answers were replayed",
        history.replayed
    );
    check::everything(&cluster, &history).await;
}
