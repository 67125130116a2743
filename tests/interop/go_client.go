// A device written in another language: verifies chains and lists, and goes through the gate with a hybrid key exchange.
//
//	go_client verify ROOT CHAIN USAGE [NAME]        USAGE client or server
//	go_client list LIST ISSUER SERIAL               says revoked or good
//	go_client get ADDRESS NAME ROOT CHAIN KEY GROUP one GET /5; says group, version, staple's octets, status line
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"time"
)

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Println("refused:", err)
		os.Exit(1)
	}
	return value
}

func certificates(path string) []*x509.Certificate {
	var found []*x509.Certificate
	rest := must(os.ReadFile(path))
	for {
		block, more := pem.Decode(rest)
		if block == nil {
			return found
		}
		found = append(found, must(x509.ParseCertificate(block.Bytes)))
		rest = more
	}
}

func pool(certificates []*x509.Certificate) *x509.CertPool {
	made := x509.NewCertPool()
	for _, one := range certificates {
		made.AddCert(one)
	}
	return made
}

func verify(words []string) {
	chain := certificates(words[1])
	usages := map[string]x509.ExtKeyUsage{"client": x509.ExtKeyUsageClientAuth, "server": x509.ExtKeyUsageServerAuth}
	options := x509.VerifyOptions{
		Roots:         pool(certificates(words[0])),
		Intermediates: pool(chain[1:]),
		KeyUsages:     []x509.ExtKeyUsage{usages[words[2]]},
	}
	if len(words) > 3 {
		options.DNSName = words[3]
	}
	paths := must(chain[0].Verify(options))
	fmt.Println("verified", len(paths), "path of", len(paths[0]))
}

func list(words []string) {
	block, _ := pem.Decode(must(os.ReadFile(words[0])))
	revocations := must(x509.ParseRevocationList(block.Bytes))
	must(0, revocations.CheckSignatureFrom(certificates(words[1])[0]))
	serial, _ := new(big.Int).SetString(words[2], 16)
	for _, one := range revocations.RevokedCertificateEntries {
		if one.SerialNumber.Cmp(serial) == 0 {
			fmt.Println("revoked", one.ReasonCode)
			return
		}
	}
	fmt.Println("good")
}

func get(words []string) {
	groups := map[string]tls.CurveID{"X25519MLKEM768": tls.X25519MLKEM768, "X25519": tls.X25519, "P256": tls.CurveP256}
	connection := must(tls.Dial("tcp", words[0], &tls.Config{
		ServerName:       words[1],
		RootCAs:          pool(certificates(words[2])),
		Certificates:     []tls.Certificate{must(tls.LoadX509KeyPair(words[3], words[4]))},
		CurvePreferences: []tls.CurveID{groups[words[5]]},
		MinVersion:       tls.VersionTLS13,
	}))
	must(0, connection.SetDeadline(time.Now().Add(20*time.Second)))
	must(fmt.Fprintf(connection, "GET /5 HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", words[1]))
	line := must(bufio.NewReader(connection).ReadString('\n'))
	state := connection.ConnectionState()
	fmt.Println(words[5], tls.VersionName(state.Version), len(state.OCSPResponse), line)
}

func main() {
	map[string]func([]string){"verify": verify, "list": list, "get": get}[os.Args[1]](os.Args[2:])
}
