//! A Kubernetes API server with its etcd: no controllers, no nodes.

mod binaries;
mod server;

pub use binaries::{ETCD_VERSION, KUBERNETES_VERSION, KubernetesBinaries};
pub use server::{Kubernetes, KubernetesOptions};
