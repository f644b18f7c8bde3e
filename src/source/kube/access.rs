//! How the API server is reached: a kubeconfig, or what the surroundings say.

use std::path::PathBuf;
use std::time::Duration;

use ::kube::client::ClientBuilder;
use ::kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use ::kube::{Client, Config};
use tower::limit::RateLimitLayer;

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

/// Two clients of one API server: neither waits for the other.
pub struct Clients {
    /// For watches: they ask little, and are kept from asking much.
    pub watches: Client,
    /// For everything else.
    pub requests: Client,
}

/// A server that does not take a connection by then is tried again.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection without a word for so long is lost. Every watch ends sooner, and is taken up again.
const SILENT: Duration = Duration::from_secs(150);
/// What all watches together may ask, as with istiod's `--kubernetesApiQPS` and `--kubernetesApiBurst`: a server that
/// ends watches as soon as they begin is not asked for more.
const QPS: u64 = 80;
const BURST: u64 = 160;

/// Clients; nothing is sent yet.
pub async fn connect(access: &Access) -> Result<Clients, AccessError> {
    let mut config = config(access).await?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(SILENT);
    config.reset_reader_on_write = true;
    // Watches try again themselves, and count it.
    config.default_retry = false;
    let failed = |source| AccessError::Client {
        server: config.cluster_url.to_string(),
        source,
    };
    let watches = ClientBuilder::try_from(config.clone()).map_err(failed)?;
    let often = RateLimitLayer::new(BURST, Duration::from_secs(BURST / QPS));
    Ok(Clients {
        watches: watches.with_layer(&often).build(),
        requests: Client::try_from(config.clone()).map_err(failed)?,
    })
}

/// Whether the API server answers for its objects: of some kinds of failure only what keeps them is gone.
pub async fn answers(client: &Client, patience: Duration) -> bool {
    let ask = http::Request::get("/api/v1/namespaces?limit=1").body(Vec::new());
    let Ok(ask) = ask else {
        return false;
    };
    match tokio::time::timeout(patience, client.request_text(ask)).await {
        Ok(Ok(_)) => true,
        // A word from it, such as that this is not allowed.
        Ok(Err(::kube::Error::Api(status))) => status.code < 500,
        Ok(Err(_)) | Err(_) => false,
    }
}

async fn config(access: &Access) -> Result<Config, AccessError> {
    match access {
        Access::Kubeconfig(path) => {
            let failed = |source| AccessError::Kubeconfig {
                path: path.clone(),
                source,
            };
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            config.map_err(failed)
        }
        Access::Surroundings => Ok(Config::infer().await?),
    }
}
