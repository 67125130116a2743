// Judges certification paths as a Java server does (PKIX). Words: ANCHOR CRLS|- SECONDS|- PATH...
// PATH is a PEM file with the leaf first and the root left out; each gives one line: accepts, refuses WHY, or fails WITH.
// With CRLS every level is looked up in them and nowhere else; SECONDS since 1970 stand for the present time.

import java.io.FileInputStream;
import java.io.InputStream;
import java.security.cert.CertPath;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.CertStore;
import java.security.cert.CertificateFactory;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.PKIXParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Date;
import java.util.EnumSet;
import java.util.Set;

public final class PathCheck {
    private static final CertificateFactory X509;

    static {
        try {
            X509 = CertificateFactory.getInstance("X.509");
        } catch (java.security.cert.CertificateException error) {
            throw new IllegalStateException(error);
        }
    }

    public static void main(String[] words) throws Exception {
        X509Certificate anchor;
        try (InputStream file = new FileInputStream(words[0])) {
            anchor = (X509Certificate) X509.generateCertificate(file);
        }
        for (int at = 3; at < words.length; at++) {
            System.out.println(judge(words[at], anchor, words[1], words[2]));
        }
    }

    private static String judge(String path, X509Certificate anchor, String crls, String seconds) throws Exception {
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        PKIXParameters parameters = new PKIXParameters(Set.of(new TrustAnchor(anchor, null)));
        parameters.setRevocationEnabled(false);
        if (!seconds.equals("-")) {
            parameters.setDate(new Date(Long.parseLong(seconds) * 1000));
        }
        if (!crls.equals("-")) {
            try (InputStream file = new FileInputStream(crls)) {
                var known = new CollectionCertStoreParameters(new ArrayList<>(X509.generateCRLs(file)));
                parameters.addCertStore(CertStore.getInstance("Collection", known));
            }
            PKIXRevocationChecker checker = (PKIXRevocationChecker) validator.getRevocationChecker();
            checker.setOptions(
                    EnumSet.of(PKIXRevocationChecker.Option.PREFER_CRLS, PKIXRevocationChecker.Option.NO_FALLBACK));
            parameters.addCertPathChecker(checker);
            parameters.setRevocationEnabled(true);
        }
        try (InputStream file = new FileInputStream(path)) {
            CertPath chain = X509.generateCertPath(new ArrayList<>(X509.generateCertificates(file)));
            validator.validate(chain, parameters);
            return "accepts";
        } catch (CertPathValidatorException error) {
            return "refuses " + error.getReason() + ": " + error.getMessage();
        } catch (RuntimeException error) {
            return "fails " + error;
        }
    }
}
