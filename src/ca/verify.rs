//! Checks service-account tokens by their issuer's public keys. Remembering the outcome is in `authenticate`.

use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::authenticate::Credential;
use super::lease::from_unix;
use super::token::Claims;
use crate::identity::SpiffeId;
use crate::text::Str;

/// Larger tokens are refused unread.
pub const MAX_TOKEN: usize = 16 << 10;
/// How far an issuer's clock may be ahead of ours; none for the end of a token.
const SKEW: Duration = Duration::from_secs(60);

/// Verifies without asking anybody: signature, issuer, audience, time.
pub struct LocalVerifier {
    keys: Vec<Key>,
    trust_domain: Str,
}

struct Key {
    id: Option<String>,
    key: DecodingKey,
    validation: Validation,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("the token is larger than {MAX_TOKEN} bytes")]
    TooLarge,
    #[error("the token is not a signed JWT of an accepted algorithm and key")]
    Malformed,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token is of another issuer")]
    Issuer,
    #[error("the token expired")]
    Expired,
    #[error("the token is not valid yet")]
    Early,
    #[error("the token does not name one service account")]
    Subject,
    #[error("the cluster does not know the token")]
    Unknown,
    #[error("the cluster does not say whose token it is: {0}")]
    Unanswered(String),
}

#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    #[error("the key set has no EC P-256 or RSA key that can verify tokens")]
    NoKey,
}

impl LocalVerifier {
    /// The algorithm of each key follows from its type; what a token's header asks for does not count.
    pub fn new(
        keys: &JwkSet,
        issuer: &str,
        audiences: &[&str],
        trust_domain: &str,
    ) -> Result<Self, KeySetError> {
        let mut found = Vec::new();
        for jwk in &keys.keys {
            let Some(algorithm) = algorithm(jwk) else {
                continue;
            };
            // One that cannot be read speaks for nobody; the others do.
            let Ok(key) = DecodingKey::from_jwk(jwk) else {
                continue;
            };
            let mut validation = Validation::new(algorithm);
            validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
            validation.set_issuer(&[issuer]);
            validation.set_audience(audiences);
            // By the library's own clock; ours is checked below.
            validation.validate_exp = false;
            found.push(Key {
                id: jwk.common.key_id.clone(),
                key,
                validation,
            });
        }
        if found.is_empty() {
            return Err(KeySetError::NoKey);
        }
        Ok(Self {
            keys: found,
            trust_domain: Str::new(trust_domain),
        })
    }

    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Credential, TokenError> {
        self.credential(&self.claims(token)?, now)
    }

    /// What the token says, and its issuer signed; its times and its bearer are not looked at yet.
    pub(super) fn claims(&self, token: &str) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLarge);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        let named = |k: &&Key| header.kid.is_none() || k.id.is_none() || k.id == header.kid;
        let key = self.keys.iter().find(named).ok_or(TokenError::Malformed)?;
        jsonwebtoken::decode::<Claims>(token, &key.key, &key.validation)
            .map_err(|e| refusal(e.kind()))
            .map(|token| token.claims)
    }

    pub(super) fn credential(
        &self,
        claims: &Claims,
        now: SystemTime,
    ) -> Result<Credential, TokenError> {
        let expires = from_unix(claims.exp).ok_or(TokenError::Malformed)?;
        if now >= expires {
            return Err(TokenError::Expired);
        }
        let begins = from_unix(claims.nbf.unwrap_or(0)).ok_or(TokenError::Malformed)?;
        if now + SKEW < begins {
            return Err(TokenError::Early);
        }
        let bound = &claims.kubernetes;
        let (namespace, account) = (&bound.namespace, &bound.serviceaccount.name);
        if claims.sub != format!("system:serviceaccount:{namespace}:{account}") {
            return Err(TokenError::Subject);
        }
        let identity = SpiffeId::new(&self.trust_domain, namespace, account)
            .map_err(|_| TokenError::Subject)?;
        Ok(Credential {
            identity,
            pod: bound.pod.as_ref().map(|p| Str::new(&p.name)),
            expires,
        })
    }
}

/// `None` for keys that cannot verify a service-account token; a shared secret never can.
fn algorithm(jwk: &Jwk) -> Option<Algorithm> {
    match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            Some(Algorithm::ES256)
        }
        AlgorithmParameters::RSA(_) => Some(Algorithm::RS256),
        _ => None,
    }
}

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAudience => TokenError::Audience,
        ErrorKind::InvalidIssuer => TokenError::Issuer,
        _ => TokenError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64URL_NOPAD;
    use jsonwebtoken::jwk::{OctetKeyParameters, OctetKeyType};
    use jsonwebtoken::{EncodingKey, Header};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::ca::key::LeafKey;
    use crate::ca::lease::unix;
    use crate::ca::testing::{after, id, now, shared_token_issuer, token_issuer};
    use crate::ca::token::{AUDIENCE, Bearer, ISSUER, TokenIssuer};

    const DAY: Duration = Duration::from_secs(86_400);

    fn verifier(issuer: &TokenIssuer) -> LocalVerifier {
        LocalVerifier::new(&issuer.jwks(), ISSUER, &[AUDIENCE], "cluster.local").unwrap()
    }

    fn token(issuer: &TokenIssuer, account: &str) -> String {
        let bearer = Bearer {
            namespace: "shop",
            service_account: account,
            pod: Some("reviews-v1"),
        };
        issuer.issue(bearer, AUDIENCE, DAY, now()).unwrap()
    }

    fn parts(token: &str) -> [String; 3] {
        let parts: Vec<String> = token.split('.').map(str::to_owned).collect();
        parts.try_into().unwrap()
    }

    fn claims(token: &str) -> Value {
        let [_, body, _] = parts(token);
        serde_json::from_slice(&BASE64URL_NOPAD.decode(body.as_bytes()).unwrap()).unwrap()
    }

    /// A token of this header and these claims, signed with HMAC under `secret`.
    fn forged(header: &Value, claims: &Value, secret: &[u8]) -> String {
        let part = |v: &Value| BASE64URL_NOPAD.encode(v.to_string().as_bytes());
        let message = format!("{}.{}", part(header), part(claims));
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
        let tag = aws_lc_rs::hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
    }

    /// Signed by the right key, with claims that the issuer would not make.
    fn signed(issuer: &TokenIssuer, edit: impl Fn(&mut Value)) -> String {
        let mut claims = claims(&token(issuer, "reviews"));
        edit(&mut claims);
        issuer.sign(&claims).unwrap()
    }

    #[test]
    fn a_token_gives_the_identity_it_was_issued_for() {
        let issuer = token_issuer();
        let token = token(&issuer, "reviews");
        let credential = verifier(&issuer).verify(&token, now()).unwrap();
        assert_eq!(credential.identity, id("reviews"));
        assert_eq!(credential.pod.as_deref(), Some("reviews-v1"));
        assert_eq!(credential.expires, now() + DAY);
        let claims = claims(&token);
        assert_eq!(claims["sub"], "system:serviceaccount:shop:reviews");
        assert_eq!(claims["aud"], json!(["istio-ca"]));
        assert_eq!(claims["kubernetes.io"]["pod"]["name"], "reviews-v1");
        assert_eq!(claims["exp"], unix(now()) + 86_400);
    }

    #[test]
    fn a_token_is_good_until_its_last_second() {
        let issuer = token_issuer();
        let token = token(&issuer, "reviews");
        let verify = |at| verifier(&issuer).verify(&token, at).map(|_| ());
        assert_eq!(verify(after(86_399)), Ok(()));
        assert_eq!(verify(after(86_400)), Err(TokenError::Expired));
        assert_eq!(verify(after(10 * 86_400)), Err(TokenError::Expired));
        assert_eq!(verify(now() - SKEW), Ok(()));
        assert_eq!(verify(now() - 2 * SKEW), Err(TokenError::Early));
    }

    #[test]
    fn tokens_of_other_issuers_audiences_and_keys_are_refused() {
        let (issuer, other) = (token_issuer(), token_issuer());
        let verify = |t: &str| verifier(&issuer).verify(t, now()).map(|_| ());
        let audience = signed(&issuer, |c| c["aud"] = json!(["vault"]));
        assert_eq!(verify(&audience), Err(TokenError::Audience));
        let issued_by = signed(&issuer, |c| c["iss"] = json!("https://elsewhere"));
        assert_eq!(verify(&issued_by), Err(TokenError::Issuer));
        let stranger = token(&other, "reviews");
        assert_eq!(verify(&stranger), Err(TokenError::Malformed));
        // The same, pretending to be signed by the known key.
        let [_, body, signature] = parts(&stranger);
        let [header, ..] = parts(&token(&issuer, "reviews"));
        let pretended = format!("{header}.{body}.{signature}");
        assert_eq!(verify(&pretended), Err(TokenError::Signature));
        for aud in [json!("istio-ca"), json!(["vault", "istio-ca"])] {
            assert_eq!(verify(&signed(&issuer, |c| c["aud"] = aud.clone())), Ok(()));
        }
    }

    #[test]
    fn a_header_cannot_choose_the_algorithm_or_the_key() {
        let issuer = token_issuer();
        let good = token(&issuer, "reviews");
        let claims = claims(&good);
        let verify = |t: &str| verifier(&issuer).verify(t, now()).map(|_| ());
        let [_, body, _] = parts(&good);
        for alg in ["none", "None", "nOnE", ""] {
            let header = BASE64URL_NOPAD.encode(json!({"alg": alg}).to_string().as_bytes());
            for token in [format!("{header}.{body}."), format!("{header}.{body}")] {
                assert_eq!(verify(&token), Err(TokenError::Malformed), "{alg}");
            }
        }
        // The public key as an HMAC secret, in each form somebody may know it in.
        let jwks = serde_json::to_string(&issuer.jwks()).unwrap();
        let modulus = BASE64URL_NOPAD.decode(modulus_of(&issuer).as_bytes());
        for secret in [jwks.as_bytes(), &modulus.unwrap(), b""] {
            let token = forged(&json!({"alg": "HS256", "typ": "JWT"}), &claims, secret);
            assert_eq!(verify(&token), Err(TokenError::Malformed));
        }
        for header in [
            json!({"alg": "RS256", "kid": "../../etc/passwd"}),
            json!({"alg": "RS256", "jwk": {"kty": "oct", "k": "AAAA"}}),
            json!({"alg": "RS256", "jku": "https://elsewhere/keys"}),
            json!({"alg": "ES256"}),
            json!({"alg": "PS256"}),
            json!({"alg": "RS384"}),
        ] {
            let token = forged(&header, &claims, b"x");
            assert!(verify(&token).is_err(), "{header}");
        }
    }

    fn modulus_of(issuer: &TokenIssuer) -> String {
        match &issuer.jwks().keys[0].algorithm {
            AlgorithmParameters::RSA(rsa) => rsa.n.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn claims_that_contradict_each_other_are_refused() {
        let issuer = token_issuer();
        let verify = |t: String| verifier(&issuer).verify(&t, now()).map(|_| ());
        let subject = |s: &str| signed(&issuer, |c| c["sub"] = json!(s));
        for other in [
            "system:serviceaccount:shop:admin",
            "system:serviceaccount:shop:reviews:x",
            "admin",
            "",
        ] {
            assert_eq!(verify(subject(other)), Err(TokenError::Subject), "{other}");
        }
        let escaping = signed(&issuer, |c| {
            c["sub"] = json!("system:serviceaccount:shop/sa/admin:x");
            c["kubernetes.io"]["namespace"] = json!("shop/sa/admin");
            c["kubernetes.io"]["serviceaccount"]["name"] = json!("x");
        });
        assert_eq!(verify(escaping), Err(TokenError::Subject));
        for missing in ["exp", "aud", "iss", "sub", "kubernetes.io"] {
            let token = signed(&issuer, |c| {
                c.as_object_mut().unwrap().remove(missing);
            });
            assert_eq!(verify(token), Err(TokenError::Malformed), "{missing}");
        }
        let endless = signed(&issuer, |c| c["exp"] = json!(u64::MAX));
        assert!(verify(endless).is_err());
        let text = signed(&issuer, |c| c["exp"] = json!("tomorrow"));
        assert_eq!(verify(text), Err(TokenError::Malformed));
    }

    #[test]
    fn a_token_over_the_bound_is_not_read() {
        let issuer = token_issuer();
        let huge = "a".repeat(MAX_TOKEN + 1);
        let got = verifier(&issuer).verify(&huge, now());
        assert_eq!(got, Err(TokenError::TooLarge));
    }

    #[test]
    fn a_key_set_without_a_usable_key_is_refused() {
        let secret = Jwk {
            common: Default::default(),
            algorithm: AlgorithmParameters::OctetKey(OctetKeyParameters {
                key_type: OctetKeyType::Octet,
                value: "c2VjcmV0".into(),
            }),
        };
        let keys = JwkSet { keys: vec![secret] };
        let made = LocalVerifier::new(&keys, ISSUER, &[AUDIENCE], "td");
        assert!(matches!(made, Err(KeySetError::NoKey)));
    }

    /// As the API server signs with an RSA key.
    #[test]
    fn keys_without_an_id_and_elliptic_keys_verify() {
        let pem = LeafKey::generate().unwrap().pem().unwrap();
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).unwrap();
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        let issuer = token_issuer();
        let keys = JwkSet {
            keys: vec![issuer.jwks().keys.remove(0), jwk],
        };
        let claims = claims(&token(&issuer, "reviews"));
        let verifier = LocalVerifier::new(&keys, ISSUER, &[AUDIENCE], "cluster.local").unwrap();
        let header = Header {
            kid: Some("unknown".into()),
            ..Header::new(Algorithm::ES256)
        };
        let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        let identity = verifier.verify(&token, now()).unwrap().identity;
        assert_eq!(identity, id("reviews"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_token_of_one_never_gives_anothers_identity(
            namespace in "[a-z][a-z0-9.-]{0,20}", account in "[a-z][a-z0-9.-]{0,20}",
            at in 0usize..400, byte in "[A-Za-z0-9._-]",
        ) {
            let issuer = shared_token_issuer();
            let bearer = Bearer { namespace: &namespace, service_account: &account, pod: None };
            let token = issuer.issue(bearer, AUDIENCE, DAY, now()).unwrap();
            let own = SpiffeId::new("cluster.local", &namespace, &account).unwrap();
            let verifier = verifier(issuer);
            prop_assert_eq!(&verifier.verify(&token, now()).unwrap().identity, &own);
            let at = at % token.len();
            let mut changed = token.clone();
            changed.replace_range(at..=at, &byte);
            if let Ok(credential) = verifier.verify(&changed, now()) {
                prop_assert_eq!(changed, token);
                prop_assert_eq!(credential.identity, own);
            }
        }

        #[test]
        fn any_text_is_refused_without_panic(text in ".{0,300}") {
            let issuer = shared_token_issuer();
            prop_assert!(verifier(issuer).verify(&text, now()).is_err());
        }
    }
}
