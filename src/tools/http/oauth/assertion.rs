//! A client that signs who it is (RFC 7523, `private_key_jwt`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use uuid::Uuid;

use crate::clock::{Clock as _, SystemClock};
use crate::config::{PrivateKey, SigningAlgorithm};

/// How long an assertion is good for, in seconds: it is used at once.
const LIFETIME: i64 = 300;

/// An assertion that the client `id` is itself, towards `audience`.
///
/// # Errors
/// What is wrong with the key.
pub(super) fn sign(id: &str, audience: &str, key: &PrivateKey) -> Result<String, String> {
    let now = SystemClock.now().timestamp();
    let mut header = json!({"typ": "client-authentication+jwt", "alg": key.algorithm.as_str()});
    if let (Some(kid), Some(header)) = (&key.id, header.as_object_mut()) {
        header.insert("kid".to_owned(), json!(kid));
    }
    let claims = json!({
        "iss": id,
        "sub": id,
        "aud": audience,
        "iat": now,
        "exp": now + LIFETIME,
        "jti": Uuid::new_v4(),
    });
    let encode = |part: String| URL_SAFE_NO_PAD.encode(part);
    let message = format!(
        "{}.{}",
        encode(header.to_string()),
        encode(claims.to_string())
    );
    let signature = signature(key, message.as_bytes())?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn signature(key: &PrivateKey, message: &[u8]) -> Result<Vec<u8>, String> {
    let pem = PrivatePkcs8KeyDer::from_pem_slice(key.pem.expose().as_bytes())
        .map_err(|_error| unfit(key))?;
    let der = pem.secret_pkcs8_der();
    match key.algorithm {
        SigningAlgorithm::Es256 => ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, der, message),
        SigningAlgorithm::Es384 => ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, der, message),
        SigningAlgorithm::Rs256 => rsa(&RSA_PKCS1_SHA256, der, message),
        SigningAlgorithm::Rs384 => rsa(&RSA_PKCS1_SHA384, der, message),
        SigningAlgorithm::Rs512 => rsa(&RSA_PKCS1_SHA512, der, message),
        SigningAlgorithm::Ps256 => rsa(&RSA_PSS_SHA256, der, message),
        SigningAlgorithm::EdDsa => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .ok()
            .map(|pair| pair.sign(message).as_ref().to_vec()),
    }
    .ok_or_else(|| unfit(key))
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, der: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let random = SystemRandom::new();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, der, &random).ok()?;
    Some(pair.sign(&random, message).ok()?.as_ref().to_vec())
}

fn rsa(encoding: &'static dyn RsaEncoding, der: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let pair = RsaKeyPair::from_pkcs8(der).ok()?;
    let mut signature = vec![0; pair.public().modulus_len()];
    let signed = pair.sign(encoding, &SystemRandom::new(), message, &mut signature);
    signed.ok().map(|()| signature)
}

fn unfit(key: &PrivateKey) -> String {
    format!(
        "the private key is none for {} in PKCS#8 (a PEM of \"BEGIN PRIVATE KEY\"; openssl pkcs8 -topk8 -nocrypt makes one)",
        key.algorithm.as_str()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use base64::engine::general_purpose::STANDARD;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, KeyPair as _, UnparsedPublicKey};

    #[test]
    fn an_assertion_says_who_to_whom_and_is_signed() {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let body = STANDARD.encode(pkcs8.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
        let key = PrivateKey {
            pem: Secret::new(pem),
            algorithm: SigningAlgorithm::Es256,
            id: Some("k1".to_owned()),
        };
        let jwt = sign("me", "https://as", &key).unwrap();
        let (message, signature) = jwt.rsplit_once('.').unwrap();
        let parts: Vec<serde_json::Value> = message
            .split('.')
            .map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        assert_eq!(
            (&parts[0]["alg"], &parts[0]["kid"]),
            (&json!("ES256"), &json!("k1"))
        );
        assert_eq!(
            (&parts[1]["sub"], &parts[1]["aud"]),
            (&json!("me"), &json!("https://as"))
        );
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
        let public = pair.unwrap().public_key().as_ref().to_vec();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public)
            .verify(
                message.as_bytes(),
                &URL_SAFE_NO_PAD.decode(signature).unwrap(),
            )
            .unwrap();

        let wrong = PrivateKey {
            algorithm: SigningAlgorithm::Rs256,
            ..key
        };
        let error = sign("me", "https://as", &wrong).unwrap_err();
        assert!(
            error.contains("RS256") && error.contains("PKCS#8"),
            "{error}"
        );
    }
}
