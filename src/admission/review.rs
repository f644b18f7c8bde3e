//! `AdmissionReview` v1: the question, and the answer of its shape.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>

use axum::Json;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

/// What is read of a review.
#[derive(Debug)]
pub(super) struct Asked {
    uid: String,
    api_version: String,
    pub(super) namespace: String,
    /// Null when the object is deleted.
    pub(super) object: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    request: Option<Question>,
}

#[derive(Deserialize)]
struct Question {
    uid: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    object: Value,
}

/// The API server cuts longer warnings, and drops what is beyond 4 kB in all.
const MAX_WARNING: usize = 250;
const MAX_WARNINGS: usize = 15;

#[derive(Debug)]
pub(super) struct Answer {
    verdict: Verdict,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum Verdict {
    Allowed,
    /// A JSON patch, encoded.
    Changed(String),
    Refused {
        code: u16,
        message: String,
    },
}

impl Asked {
    pub(super) fn read(body: &str) -> Result<Self, String> {
        let review: Review =
            serde_json::from_str(body).map_err(|e| format!("this is no AdmissionReview: {e}"))?;
        let request = review
            .request
            .ok_or("this AdmissionReview has no request")?;
        Ok(Self {
            uid: request.uid,
            api_version: review.api_version,
            namespace: request.namespace,
            object: request.object,
        })
    }

    /// A pod of a ReplicaSet has no name yet.
    pub(super) fn shown_name(&self) -> &str {
        let meta = &self.object["metadata"];
        let name = meta["name"]
            .as_str()
            .or_else(|| meta["generateName"].as_str());
        name.unwrap_or_default()
    }

    pub(super) fn answered(&self, answer: Answer) -> impl IntoResponse {
        let Answer { verdict, warnings } = answer;
        let mut response = json!({"uid": self.uid, "allowed": true});
        match verdict {
            Verdict::Allowed => {}
            Verdict::Changed(patch) => {
                response["patchType"] = json!("JSONPatch");
                response["patch"] = json!(patch);
            }
            Verdict::Refused { code, message } => {
                response["allowed"] = json!(false);
                response["status"] = json!({"code": code, "message": message});
            }
        }
        if !warnings.is_empty() {
            response["warnings"] = json!(warnings);
        }
        let review = json!({
            "apiVersion": self.api_version,
            "kind": "AdmissionReview",
            "response": response,
        });
        let answer: Response = Json(review).into_response();
        answer
    }
}

impl Answer {
    pub(super) fn allowed() -> Self {
        Self {
            verdict: Verdict::Allowed,
            warnings: Vec::new(),
        }
    }

    pub(super) fn changed(before: &Value, after: &Value) -> Self {
        let patch = json!(json_patch::diff(before, after));
        Self {
            verdict: Verdict::Changed(BASE64.encode(patch.to_string().as_bytes())),
            warnings: Vec::new(),
        }
    }

    pub(super) fn refused(code: u16, message: &str) -> Self {
        Self {
            verdict: Verdict::Refused {
                code,
                message: message.to_owned(),
            },
            warnings: Vec::new(),
        }
    }

    pub(super) fn warning(self, warnings: Vec<String>) -> Self {
        let cut = |text: String| text.chars().take(MAX_WARNING).collect();
        Self {
            warnings: warnings.into_iter().take(MAX_WARNINGS).map(cut).collect(),
            ..self
        }
    }

    pub(super) fn is_allowed(&self) -> bool {
        match self.verdict {
            Verdict::Allowed | Verdict::Changed(_) => true,
            Verdict::Refused { .. } => false,
        }
    }
}
