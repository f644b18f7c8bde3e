//! How the API server is reached: a kubeconfig, or what the surroundings say.

use std::path::PathBuf;
use std::time::Duration;

use ::kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use ::kube::{Client, Config};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Kubeconfig(PathBuf),
    /// `KUBECONFIG`, or the service account of the pod that this runs in.
    Surroundings,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("read the kubeconfig {}", path.display())]
    Kubeconfig {
        path: PathBuf,
        source: KubeconfigError,
    },
    #[error("find an API server by KUBECONFIG or as a pod")]
    Surroundings(#[from] InferConfigError),
    #[error("prepare a client of the API server {server}")]
    Client {
        server: String,
        source: ::kube::Error,
    },
}

/// A server that does not take a connection by then is tried again.
const CONNECT: Duration = Duration::from_secs(5);

/// A client; nothing is sent yet.
pub async fn connect(access: &Access) -> Result<Client, AccessError> {
    let mut config = match access {
        Access::Kubeconfig(path) => {
            let failed = |source| AccessError::Kubeconfig {
                path: path.clone(),
                source,
            };
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            config.map_err(failed)?
        }
        Access::Surroundings => Config::infer().await?,
    };
    config.connect_timeout = Some(CONNECT);
    // Watches try again themselves, and count it.
    config.default_retry = false;
    let server = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| AccessError::Client { server, source })
}
