package identity

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/MicahParks/jwkset"
)

// marshalJWK writes the public half of a key (RFC 7517).
func marshalJWK(key *signingKey) ([]byte, error) {
	jwk, err := publicJWK(key.public, jwkset.JWKMetadataOptions{ALG: jwkset.ALG(key.alg), KID: key.id, USE: jwkset.UseSig})
	if err != nil {
		return nil, err
	}
	doc, err := json.Marshal(jwk)
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	return doc, nil
}

func publicJWK(public any, meta jwkset.JWKMetadataOptions) (jwkset.JWKMarshal, error) {
	jwk, err := jwkset.NewJWKFromKey(public, jwkset.JWKOptions{Metadata: meta})
	if err != nil {
		return jwkset.JWKMarshal{}, fmt.Errorf("encoding a public key: %w", err)
	}
	return jwk.Marshal(), nil
}

// thumbprint is the JWK thumbprint of RFC 7638 with SHA-256.
func thumbprint(public any) (string, error) {
	jwk, err := publicJWK(public, jwkset.JWKMetadataOptions{})
	if err != nil {
		return "", err
	}
	// The required members only, in lexicographic order, without white space.
	members := map[string]string{"kty": jwk.KTY.String()}
	switch jwk.KTY {
	case jwkset.KtyRSA:
		members["e"], members["n"] = jwk.E, jwk.N
	case jwkset.KtyEC:
		members["crv"], members["x"], members["y"] = jwk.CRV.String(), jwk.X, jwk.Y
	default:
		members["crv"], members["x"] = jwk.CRV.String(), jwk.X
	}
	canonical, err := json.Marshal(members) // maps are written in the order of their keys
	if err != nil {
		return "", fmt.Errorf("encoding a thumbprint: %w", err)
	}
	sum := sha256.Sum256(canonical)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}
