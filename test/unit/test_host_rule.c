/*
 * test_host_rule.c
 *		Entries of a group's allowed hosts: how they are written, what they mean.
 *
 * What an entry must not match matters more than what it does, so most lines
 * here are hosts that look nearly like an allowed one.
 */
#include "postgres.h"

#include "../../src/host_rule.h"
#include "check.h"

static void
check_match(const char *entry, const char *url, bool expected)
{
	RetryHostRule rule;
	RetryUrl	parsed;
	char		err[256] = "";
	bool		ok = retry_host_rule_parse(entry, &rule, err, sizeof(err)) &&
		(strncmp(url, "smtp", 4) == 0 ? retry_url_check_mail : retry_url_check) (url, &parsed, err, sizeof(err));

	CHECK(ok && retry_host_rule_matches(&rule, &parsed) == expected,
		  "\"%s\" %s %s%s%s", entry, expected ? "allows" : "does not allow", url, ok ? "" : ": ", err);
}

static void
test_names(void)
{
	check_match("example.com", "https://example.com/", true);
	check_match("example.com", "http://example.com", true);
	check_match("EXAMPLE.com", "https://Example.COM./path", true);
	check_match("example.com.", "https://example.com/", true);
	check_match("example.com", "https://www.example.com/", false);
	check_match("example.com", "https://example.com.evil.org/", false);
	check_match("example.com", "https://notexample.com/", false);
	check_match("example.com", "https://evil.org/example.com", false);
	check_match("example.com", "https://evil.org/?example.com:443", false);
	check_match("example.com", "https://evil.org#example.com", false);
	check_match("xn--bcher-kva.example", "https://xn--bcher-kva.example/", true);
}

static void
test_below(void)
{
	check_match("*.example.com", "https://www.example.com/", true);
	check_match("*.example.com", "https://a.b.c.example.com/", true);
	check_match("*.EXAMPLE.com", "https://www.example.com./", true);
	check_match("*.example.com", "https://example.com/", false);
	check_match("*.example.com", "https://notexample.com/", false);
	check_match("*.example.com", "https://www.example.com.evil.org/", false);
	check_match("*.com", "https://example.com/", true);
	check_match("*.com", "https://example.org/", false);
}

static void
test_ports(void)
{
	check_match("example.com", "https://example.com:443/", true);
	check_match("example.com", "http://example.com:80/", true);
	check_match("example.com", "https://example.com:80/", false);
	check_match("example.com", "http://example.com:443/", false);
	check_match("example.com", "https://example.com:8443/", false);
	check_match("example.com:8443", "https://example.com:8443/", true);
	check_match("example.com:8443", "https://example.com/", false);
	check_match("example.com:443", "http://example.com/", false);
	check_match("example.com:443", "http://example.com:443/", true);
	check_match("example.com:*", "http://example.com:22/", true);
	check_match("*.example.com:443", "https://www.example.com/", true);
	check_match("*.example.com:443", "https://www.example.com:444/", false);
	check_match("*.example.com:*", "https://www.example.com:444/", true);
	check_match("example.com", "smtps://example.com", true);
	check_match("example.com", "smtp://example.com:587", true);
	check_match("example.com", "smtp+plaintext://example.com", true);
	check_match("example.com", "smtp://example.com:25", false);
	check_match("example.com", "smtps://example.com:443", false);
	check_match("example.com:25", "smtp://example.com:25", true);
	check_match("example.com:*", "smtps://example.com:2525", true);
}

static void
test_addresses(void)
{
	check_match("10.1.2.3", "http://10.1.2.3/", true);
	check_match("10.1.2.3", "http://10.1.2.30/", false);
	check_match("10.1.2.3:8080", "http://10.1.2.3:8080/", true);
	check_match("10.1.2.3", "http://[::ffff:10.1.2.3]/", false);
	check_match("[2a00::1]", "http://[2A00:0::1]/", true);
	check_match("[2A00:0:0::1]:8080", "http://[2a00::1]:8080/", true);
	check_match("[2a00::1]", "http://[2a00::2]/", false);
	check_match("[2a00::1]:*", "http://[2a00::1]:1/", true);
}

static void
test_any(void)
{
	check_match("*", "https://example.com/", true);
	check_match("*", "http://[2a00::1]/", true);
	check_match("*", "https://example.com:8443/", false);
	check_match("*:8443", "https://example.com:8443/", true);
	check_match("*:8443", "https://example.com/", false);
	check_match("*:*", "https://example.com:1/", true);
}

static void
check_malformed(const char *entry, const char *expected)
{
	RetryHostRule rule;
	char		err[256] = "";

	CHECK(!retry_host_rule_parse(entry, &rule, err, sizeof(err)), "\"%.60s\" is refused", entry);
	CHECK_STR(err, expected, "and says why");
}

static void
test_malformed(void)
{
	static char longest[400];

	check_malformed("", "URL has no host");
	check_malformed("*.", "URL has no host");
	check_malformed(":443", "URL has no host");
	check_malformed("https://example.com", "it is a host, not a URL");
	check_malformed("example.com/", "it is a host, not a URL");
	check_malformed("user@example.com", "it is a host, not a URL");
	check_malformed("example.com?", "it is a host, not a URL");
	check_malformed("example.com#", "it is a host, not a URL");
	check_malformed("example.com:0", "port \"0\" in URL is not a number from 1 to 65535");
	check_malformed("example.com:", "port \"\" in URL is not a number from 1 to 65535");
	check_malformed("example.com:**", "port \"**\" in URL is not a number from 1 to 65535");
	check_malformed("*:70000", "port \"70000\" in URL is not a number from 1 to 65535");
	check_malformed("*example.com", "host in URL contains \"*\"");
	check_malformed("www.*.com", "host in URL contains \"*\"");
	check_malformed("*.*.com", "host in URL contains \"*\"");
	check_malformed("**", "host in URL contains \"*\"");
	check_malformed("exa mple.com", "URL contains a blank (byte 0x20) at position 11; percent-encode it");
	check_malformed("*.10.1.2.3", "nothing is below an address");
	check_malformed("2130706433", "host \"2130706433\" in URL is neither a name nor a dotted IPv4 address");
	check_malformed("10.0.0.0/8", "it is a host, not a URL");
	check_malformed("::1", "URL has no host");
	memset(longest, 'a', sizeof(longest) - 1);
	check_malformed(longest, "it is too long");
}

int
main(void)
{
	test_names();
	test_below();
	test_ports();
	test_addresses();
	test_any();
	test_malformed();
	return check_done();
}
