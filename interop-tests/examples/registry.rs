//! A node whose process has names in a registry, until it is killed: `registry NODE REGISTRY NAME [PEER]...`.

use foundation_node::{Node, config::NodeConfig};
use foundation_proto::etf::Term;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: registry NODE REGISTRY NAME [PEER]...");
    let (node, registry, name) = (next()?, next()?, next()?);
    let cookie = std::env::var("FOUNDATION_COOKIE")?;
    let port = std::env::var("ERL_EPMD_PORT")?.parse()?;
    let node = Node::start(NodeConfig::new(&node).cookie(&cookie).epmd_port(port)).await?;
    let registry = node.registry(&registry)?;
    let worker = node.process()?;
    registry.register(Term::from(name.as_str()), Term::atom("killed"), worker.pid()).await?;
    for peer in arguments {
        node.connect(&peer).await?;
    }
    std::future::pending().await
}
