//! Where Prometheus is sent: by the pod's annotations, to the proxy's statistics and the application's on one page.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::choices::Choices;
use super::lists::Pod;
use super::{InjectError, Injection, child};
use crate::bootstrap::{AppMetrics, Metrics};
use crate::config::mesh::PrometheusMerge;

const MERGE: &str = "prometheus.istio.io/merge-metrics";
const PAGE: &str = "/stats/prometheus";
/// What Istio takes where an application says that it is scraped, and no more.
const PORT: u16 = 80;
const PATH: &str = "/metrics";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scraped {
    /// What the pod's annotations say stands.
    AsSaid,
    Merged {
        port: u16,
        app: Option<AppMetrics>,
    },
}

/// What the pod's own annotations say, whichever way they are spelled.
#[derive(Default)]
struct Said {
    scrape: Option<String>,
    port: Option<String>,
    path: Option<String>,
}

impl Said {
    fn of(pod: &Pod<'_>) -> Self {
        let mut said = Self::default();
        for (key, value) in pod.annotations.iter() {
            let Some(field) = field(key) else {
                continue;
            };
            let value = Some(value.to_string());
            match field {
                Field::Scrape => said.scrape = value,
                Field::Port => said.port = value,
                Field::Path => said.path = value,
            }
        }
        said
    }

    fn says_nothing(&self) -> bool {
        self.scrape.is_none() && self.port.is_none() && self.path.is_none()
    }
}

enum Field {
    Scrape,
    Port,
    Path,
}

/// As Prometheus makes labels of annotations: all but letters and digits are one.
fn field(key: &str) -> Option<Field> {
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    match key.chars().map(word).collect::<String>().as_str() {
        "prometheus_io_scrape" => Some(Field::Scrape),
        "prometheus_io_port" => Some(Field::Port),
        "prometheus_io_path" => Some(Field::Path),
        _ => None,
    }
}

impl Scraped {
    pub(super) fn of(
        pod: &Pod<'_>,
        choices: &Choices,
        injection: &Injection,
    ) -> Result<Self, InjectError> {
        let said = Said::of(pod);
        let by_mesh = injection.proxies.metrics == PrometheusMerge::On;
        let merges = match pod.annotation(MERGE) {
            Some("true") => true,
            Some("false") => false,
            None | Some("") => by_mesh,
            Some(other) => {
                return Err(InjectError::annotation(
                    MERGE,
                    other,
                    "say `true` or `false`",
                ));
            }
        };
        if !merges || choices.status_port == 0 || said.scrape.as_deref() == Some("false") {
            return Ok(Self::AsSaid);
        }
        let port = choices.status_port;
        Ok(Self::Merged {
            port,
            app: app(&said, port)?,
        })
    }

    pub(super) fn page(&self, address: SocketAddr) -> Option<Metrics> {
        match self {
            Self::AsSaid => None,
            Self::Merged { app, .. } => Some(Metrics {
                address,
                app: app.clone(),
            }),
        }
    }

    /// One spelling takes the place of all: Prometheus would choose among several.
    pub(super) fn put_into(&self, pod: &mut Value) {
        let Self::Merged { port, .. } = self else {
            return;
        };
        child(pod, "metadata");
        let annotations = child(&mut pod["metadata"], "annotations");
        annotations.retain(|key, _| field(key).is_none());
        for (key, value) in [
            ("scrape", "true"),
            ("path", PAGE),
            ("port", &port.to_string()),
        ] {
            annotations.insert(format!("prometheus.io/{key}"), json!(value));
        }
    }
}

fn app(said: &Said, own: u16) -> Result<Option<AppMetrics>, InjectError> {
    let port = match said.port.as_deref() {
        None => PORT,
        Some(text) => text.trim().parse().map_err(|_| {
            InjectError::annotation("prometheus.io/port", text, "it is no such number")
        })?,
    };
    // Sent to the proxy already, by whoever wrote the pod.
    if said.says_nothing() || port == own {
        return Ok(None);
    }
    let path = said.path.as_deref().unwrap_or(PATH);
    let whole = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    };
    let app = AppMetrics::new(port, &whole);
    app.map(Some)
        .map_err(|why| InjectError::annotation("prometheus.io/path", path, why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(annotations: &Value, injection: &Injection) -> Result<Scraped, InjectError> {
        let pod = json!({"metadata": {"annotations": annotations}, "spec": {"containers": []}});
        let pod = Pod::read(&pod, "shop")?;
        Scraped::of(&pod, &Choices::of(&pod, injection)?, injection)
    }

    fn merged(app: Option<(u16, &str)>) -> Scraped {
        Scraped::Merged {
            port: 15020,
            app: app.map(|(port, path)| AppMetrics::new(port, path).unwrap()),
        }
    }

    #[test]
    fn the_applications_own_page_is_where_its_annotations_say() {
        let usual = Injection::default();
        for (annotations, want) in [
            (json!({}), merged(None)),
            (
                json!({"prometheus.io/scrape": "true"}),
                merged(Some((80, "/metrics"))),
            ),
            (
                json!({"prometheus.io/port": "9090", "prometheus.io.path": "m?x=1"}),
                merged(Some((9090, "/m?x=1"))),
            ),
            (json!({"prometheus.io/port": "15020"}), merged(None)),
            (json!({"prometheus.io/scrape": "false"}), Scraped::AsSaid),
            (json!({MERGE: "false"}), Scraped::AsSaid),
            (
                json!({"status.sidecar.istio.io/port": "0"}),
                Scraped::AsSaid,
            ),
        ] {
            assert_eq!(of(&annotations, &usual).unwrap(), want, "{annotations}");
        }
        let mut off = Injection::default();
        off.proxies.metrics = PrometheusMerge::Off;
        assert_eq!(of(&json!({}), &off).unwrap(), Scraped::AsSaid);
        assert_eq!(of(&json!({MERGE: "true"}), &off).unwrap(), merged(None));
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for (key, value) in [
            ("prometheus.io/port", "http"),
            ("prometheus.io/path", "/a'b"),
            (MERGE, "maybe"),
        ] {
            let refused = of(&json!({key: value}), &Injection::default());
            assert!(refused.unwrap_err().to_string().contains(key));
        }
    }

    #[test]
    fn one_spelling_takes_the_place_of_all() {
        let mut pod = json!({"metadata": {"annotations": {
            "prometheus.io.port": "1", "prometheus.io/path": "/x", "other": "y",
        }}});
        merged(None).put_into(&mut pod);
        let want = json!({
            "other": "y",
            "prometheus.io/scrape": "true",
            "prometheus.io/path": "/stats/prometheus",
            "prometheus.io/port": "15020",
        });
        assert_eq!(pod["metadata"]["annotations"], want);
    }
}
