//! Which ports `up` uses.

use anyhow::anyhow;
use clap::Args;
use millrace_parts::{free_port, port_is_free};

use crate::failure::Failure;

/// The ports of `up`. Those that nothing is said about are as documented when they are free, else
/// any that is.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Ports on 127.0.0.1")]
pub struct PortArgs {
    /// The public port: all routes, the OpenAPI document and its page
    #[arg(
        long,
        env = "MILLRACE_PORT",
        default_value_t = 8080,
        value_name = "PORT"
    )]
    pub port: u16,
    /// The admin port: the projector's, with the operations on dead letters [default: 9090, or a
    /// free one]
    #[arg(long, value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// The command service's port, which the public one forwards writes to [default: 8081, or a
    /// free one]
    #[arg(long, value_name = "PORT")]
    pub command_port: Option<u16>,
    /// The command service's admin port [default: 9091, or a free one]
    #[arg(long, value_name = "PORT")]
    pub command_admin_port: Option<u16>,
    /// The command service's internal port, which other contexts call [default: 8090, or a free
    /// one]
    #[arg(long, value_name = "PORT")]
    pub internal_port: Option<u16>,
    /// The query service's admin port [default: 9092, or a free one]
    #[arg(long, value_name = "PORT")]
    pub query_admin_port: Option<u16>,
    /// PostgreSQL's port [default: 15432, or a free one]
    #[arg(long, value_name = "PORT")]
    pub postgres_port: Option<u16>,
    /// The port of NATS [default: 14222, or a free one]
    #[arg(long, value_name = "PORT")]
    pub nats_port: Option<u16>,
    /// DynamoDB's port [default: 18000, or a free one]
    #[arg(long, value_name = "PORT")]
    pub dynamodb_port: Option<u16>,
    /// SNS's port, where a browser shows what was sent [default: 19911, or a free one]
    #[arg(long, value_name = "PORT")]
    pub sns_port: Option<u16>,
}

/// The ports of one run.
#[derive(Debug, Clone)]
pub struct Ports {
    pub public: u16,
    pub projector_admin: u16,
    pub command: u16,
    pub command_admin: u16,
    pub internal: u16,
    pub query_admin: u16,
    pub postgres: u16,
    pub nats: u16,
    pub dynamodb: u16,
    pub sns: u16,
}

impl Ports {
    /// Settles on ports.
    ///
    /// # Errors
    /// When one that was asked for, or the public one, is in use.
    pub fn choose(args: &PortArgs) -> Result<Self, Failure> {
        let mut taken = Vec::new();
        let mut choose = |flag: &str, asked: Option<u16>, usual: u16| {
            let port = match asked {
                Some(port) if !port_is_free(port) || taken.contains(&port) => {
                    return Err(in_use(flag, port));
                }
                Some(port) => port,
                None if port_is_free(usual) && !taken.contains(&usual) => usual,
                None => free_port(),
            };
            taken.push(port);
            Ok(port)
        };
        Ok(Self {
            public: choose("--port", Some(args.port), args.port)?,
            projector_admin: choose("--admin-port", args.admin_port, 9090)?,
            command: choose("--command-port", args.command_port, 8081)?,
            command_admin: choose("--command-admin-port", args.command_admin_port, 9091)?,
            internal: choose("--internal-port", args.internal_port, 8090)?,
            query_admin: choose("--query-admin-port", args.query_admin_port, 9092)?,
            postgres: choose("--postgres-port", args.postgres_port, 15432)?,
            nats: choose("--nats-port", args.nats_port, 14222)?,
            dynamodb: choose("--dynamodb-port", args.dynamodb_port, 18000)?,
            sns: choose("--sns-port", args.sns_port, 19911)?,
        })
    }
}

fn in_use(flag: &str, port: u16) -> Failure {
    Failure::Failed(anyhow!(
        "port {port} on 127.0.0.1 is in use by another process: end that process, or choose \
         another port with `{flag} <PORT>`"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn args(port: u16, nats_port: Option<u16>) -> PortArgs {
        PortArgs {
            port,
            admin_port: None,
            command_port: None,
            command_admin_port: None,
            internal_port: None,
            query_admin_port: None,
            postgres_port: None,
            nats_port,
            dynamodb_port: None,
            sns_port: None,
        }
    }

    #[test]
    fn a_port_in_use_is_named_with_its_flag() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        let public = Ports::choose(&args(taken, None)).unwrap_err().to_string();
        assert!(
            public.contains(&format!("port {taken}")) && public.contains("--port"),
            "{public}"
        );
        let nats = Ports::choose(&args(free_port(), Some(taken)))
            .unwrap_err()
            .to_string();
        assert!(nats.contains("--nats-port"), "{nats}");
    }

    #[test]
    fn no_port_is_given_twice() {
        // A public port that is usual for something else. Those may be in use by a system that runs
        // here, so whichever is free.
        let usual = [9090, 8081, 9091, 8090, 9092, 15432, 14222, 18000, 19911];
        let public = usual.into_iter().find(|port| port_is_free(*port));
        let public = public.unwrap_or_else(free_port);
        let ports = Ports::choose(&args(public, None)).unwrap();
        let all = BTreeSet::from([
            ports.public,
            ports.projector_admin,
            ports.command,
            ports.command_admin,
            ports.internal,
            ports.query_admin,
            ports.postgres,
            ports.nats,
            ports.dynamodb,
            ports.sns,
        ]);
        assert_eq!(ports.public, public);
        assert_eq!(all.len(), 10, "{ports:?}");
        let twice = Ports::choose(&args(public, Some(public)));
        assert!(twice.unwrap_err().to_string().contains("--nats-port"));
    }
}
