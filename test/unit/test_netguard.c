/*
 * test_netguard.c
 *		The network guard: lists, addresses, and IPv4 hidden inside IPv6.
 *
 * Each way to write a forbidden address that a guard was ever fooled by gets
 * its line here.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "../../src/netguard.h"
#include "check.h"

static RetryNetguard guard;

static void
set_guard(const char *blocked, const char *allowed)
{
	char		err[200] = "";
	bool		ok = retry_netguard_parse(blocked, &guard.blocked, err, sizeof(err)) &&
		retry_netguard_parse(allowed, &guard.allowed, err, sizeof(err));

	CHECK(ok, "lists \"%s\" and \"%s\" parse%s", blocked, allowed, err);
}

/* rule: the network expected to block it, NULL for allowed */
static void
check_address(const char *text, const char *rule)
{
	char		got[RETRY_NETGUARD_RULE_TEXT] = "";
	char		got_text[RETRY_NETGUARD_RULE_TEXT] = "";
	struct sockaddr_storage address;
	bool		literal;
	bool		allowed;
	bool		allowed_text;

	memset(&address, 0, sizeof(address));
	if (inet_pton(AF_INET, text, &((struct sockaddr_in *) &address)->sin_addr) == 1)
		address.ss_family = AF_INET;
	else if (inet_pton(AF_INET6, text, &((struct sockaddr_in6 *) &address)->sin6_addr) == 1)
		address.ss_family = AF_INET6;
	allowed = retry_netguard_check(&guard, (struct sockaddr *) &address, got, sizeof(got));
	allowed_text = retry_netguard_check_text(&guard, text, &literal, got_text, sizeof(got_text));
	CHECK(allowed == (rule == NULL) && allowed_text == allowed && literal &&
		  strcmp(got, rule ? rule : "") == 0 && strcmp(got_text, got) == 0,
		  "%s is %s (%s)", text, rule ? "blocked" : "allowed", got);
}

static void
test_defaults(void)
{
	set_guard(RETRY_NETGUARD_DEFAULT_BLOCKED, "");
	check_address("8.8.8.8", NULL);
	check_address("10.1.2.3", NULL);
	check_address("127.0.0.1", "127.0.0.0/8");
	check_address("127.255.255.255", "127.0.0.0/8");
	check_address("128.0.0.0", NULL);
	check_address("0.0.0.0", "0.0.0.0/8");
	check_address("169.254.169.254", "169.254.0.0/16");
	check_address("169.253.255.255", NULL);
	check_address("224.0.0.1", "224.0.0.0/4");
	check_address("239.255.255.255", "224.0.0.0/4");
	check_address("255.255.255.255", "240.0.0.0/4");
	check_address("::", "::/128");
	check_address("::1", "::1/128");
	check_address("fe80::1", "fe80::/10");
	check_address("febf::1", "fe80::/10");
	check_address("fec0::1", NULL);
	check_address("ff02::1", "ff00::/8");
	check_address("2606:4700::1111", NULL);
}

/* The first and last of each range that IANA keeps, and their neighbours. */
static void
test_reserved(void)
{
	check_address("192.0.0.0", "192.0.0.0/24");
	check_address("192.0.0.255", "192.0.0.0/24");
	check_address("192.0.1.0", NULL);
	check_address("192.0.2.1", "192.0.2.0/24");
	check_address("192.88.99.1", "192.88.99.0/24");
	check_address("198.17.255.255", NULL);
	check_address("198.18.0.0", "198.18.0.0/15");
	check_address("198.19.255.255", "198.18.0.0/15");
	check_address("198.20.0.0", NULL);
	check_address("198.51.100.7", "198.51.100.0/24");
	check_address("203.0.113.7", "203.0.113.0/24");
	check_address("223.255.255.255", NULL);
	check_address("240.0.0.1", "240.0.0.0/4");
	check_address("100::1", "100::/8");
	check_address("100:0:0:1::1", "100::/8");
	check_address("200::1", "200::/7");
	check_address("7ff::1", "400::/6");
	check_address("fff::1", "800::/5");
	check_address("1fff::1", "1000::/4");
	check_address("2001:1ff:ffff::1", "2001::/23");
	check_address("2001:200::1", NULL);
	check_address("2001:db8::1", "2001:db8::/32");
	check_address("2001:db9::1", NULL);
	check_address("3ffe:ffff::1", NULL);
	check_address("3fff::1", "3fff::/20");
	check_address("3fff:1000::1", NULL);
	check_address("5f00::1", "4000::/2");
	check_address("bfff::1", "8000::/2");
	check_address("dfff::1", "c000::/3");
	check_address("efff::1", "e000::/4");
	check_address("f7ff::1", "f000::/5");
	check_address("fbff::1", "f800::/6");
	check_address("fe7f::1", "fe00::/9");
}

/* What clouds tell their machines, and networks of one's own. */
static void
test_words(void)
{
	check_address("100.100.100.200", "100.100.100.200/32");
	check_address("100.100.100.201", NULL);
	check_address("168.63.129.16", "168.63.129.16/32");
	check_address("fd00:ec2::254", "fd00:ec2::/32");
	check_address("fd20:ce::254", "fd20:ce::254/128");
	check_address("fd00:ec3::254", NULL);
	check_address("100.64.0.1", NULL);
	check_address("fc00::1", NULL);

	set_guard("private", "");
	check_address("10.0.0.0", "10.0.0.0/8");
	check_address("100.64.0.0", "100.64.0.0/10");
	check_address("100.127.255.255", "100.64.0.0/10");
	check_address("100.128.0.0", NULL);
	check_address("172.15.255.255", NULL);
	check_address("172.16.0.0", "172.16.0.0/12");
	check_address("172.31.255.255", "172.16.0.0/12");
	check_address("172.32.0.0", NULL);
	check_address("192.168.255.255", "192.168.0.0/16");
	check_address("fdff::1", "fc00::/7");
	check_address("feff::1", "fec0::/10");
	check_address("127.0.0.1", NULL);

	set_guard("Non-Public,1.2.3.0/24", "10.1.2.0/24 private");
	check_address("169.254.169.254", "169.254.0.0/16");
	check_address("168.63.129.16", "168.63.129.16/32");
	check_address("192.168.0.1", NULL);
	check_address("1.2.3.4", "1.2.3.0/24");
	check_address("8.8.8.8", NULL);
}

static void
test_embedded(void)
{
	set_guard("reserved", "");
	check_address("::ffff:127.0.0.1", "127.0.0.0/8");
	check_address("::ffff:8.8.8.8", NULL);
	check_address("::ffff:0:169.254.169.254", "169.254.0.0/16");
	check_address("::127.0.0.1", "::/96");
	check_address("64:ff9b::169.254.169.254", "169.254.0.0/16");
	check_address("64:ff9b:1::127.0.0.1", "127.0.0.0/8");
	check_address("64:ff9b::8.8.8.8", NULL);
	check_address("2002:7f00:0001::1", "127.0.0.0/8");
	check_address("2002:a9fe:a9fe::", "169.254.0.0/16");
	check_address("2002:0808:0808::1", NULL);
	check_address("2001:0:1:2:3:4:f7f7:f7f7", "2001::/23");
	check_address("2a00:1:2:3:0:5efe:7f00:1", "127.0.0.0/8");	/* ISATAP */
	check_address("2a00:1:2:3:200:5efe:7f00:1", "127.0.0.0/8");
	check_address("2a00:1:2:3:200:5efe:808:808", NULL);
	check_address("2a00:1:2:3:100:5efe:7f00:1", NULL);

	set_guard("127.0.0.0/8", "");
	check_address("::127.0.0.1", "127.0.0.0/8");
	check_address("2001:0:1:2:3:4:80ff:fffe", "127.0.0.0/8");	/* Teredo of 127.0.0.1 */
	check_address("2001:0:1:2:3:4:f7f7:f7f7", NULL);

	/* a NAT64 of local use, by the length of its prefix */
	check_address("64:ff9b:1::127.0.0.1", "127.0.0.0/8");
	check_address("64:ff9b:1:7f00:0:100::", "127.0.0.0/8");
	check_address("64:ff9b:1:7f:0:1::", "127.0.0.0/8");
	check_address("64:ff9b:1:0:7f:0:100::", "127.0.0.0/8");
	check_address("64:ff9b:1:808:8:800::", NULL);
}

static void
test_exceptions(void)
{
	set_guard(RETRY_NETGUARD_DEFAULT_BLOCKED, "127.0.0.5, 127.1.0.0/16 ::1");
	check_address("127.0.0.5", NULL);
	check_address("::ffff:127.0.0.5", NULL);
	check_address("127.0.0.4", "127.0.0.0/8");
	check_address("127.1.255.255", NULL);
	check_address("127.2.0.0", "127.0.0.0/8");
	check_address("::1", NULL);

	/* the whole of IPv6 allowed does not open IPv4 through the back door */
	set_guard(RETRY_NETGUARD_DEFAULT_BLOCKED, "::/0");
	check_address("fe80::1", NULL);
	check_address("::ffff:169.254.169.254", "169.254.0.0/16");

	set_guard("0.0.0.0/0 ::/0", "");
	check_address("8.8.8.8", "0.0.0.0/0");
	check_address("2606:4700::1111", "::/0");
	set_guard("10.0.0.0/9", "");
	check_address("10.127.255.255", "10.0.0.0/9");
	check_address("10.128.0.0", NULL);
	set_guard("", "");
	check_address("127.0.0.1", NULL);
}

static void
test_other(void)
{
	struct sockaddr_un local = {AF_UNIX, "/tmp/socket"};
	char		rule[RETRY_NETGUARD_RULE_TEXT] = "";
	bool		literal;

	set_guard(RETRY_NETGUARD_DEFAULT_BLOCKED, "");
	CHECK(!retry_netguard_check(&guard, (struct sockaddr *) &local, rule, sizeof(rule)),
		  "another family is never allowed: %s", rule);
	CHECK(!retry_netguard_check_text(&guard, "[fe80::1%eth0]", &literal, NULL, 0) && literal,
		  "brackets and a zone do not hide an address");
	CHECK(retry_netguard_check_text(&guard, "example.com", &literal, NULL, 0) && !literal,
		  "a name is left to its resolution");
	CHECK(retry_netguard_check_text(&guard, "notlocalhost", &literal, NULL, 0) && !literal,
		  "also one that ends so");
	CHECK(!retry_netguard_check_text(&guard, "LocalHost", &literal, rule, sizeof(rule)) && literal,
		  "but for localhost, in %s", rule);
	CHECK(!retry_netguard_check_text(&guard, "any.localhost.", &literal, NULL, 0) && literal,
		  "and what is below it");
	set_guard("reserved", "127.0.0.0/8");
	CHECK(retry_netguard_check_text(&guard, "localhost", &literal, NULL, 0) && literal,
		  "which is allowed when one of its addresses is");
	set_guard("reserved", "::1");
	CHECK(retry_netguard_check_text(&guard, "localhost", &literal, NULL, 0) && literal,
		  "or the other");
}

static void
check_malformed(const char *text, const char *expected)
{
	RetryNetguardList list = {.count = 42};
	char		err[200] = "";

	CHECK(!retry_netguard_parse(text, &list, err, sizeof(err)) && list.count == 42,
		  "\"%.60s\" is refused and changes nothing", text);
	CHECK_STR(err, expected, "and says why");
}

static void
test_malformed(void)
{
	static char many[257 * 8 + 1];
	int			i;

	check_malformed("10.0.0.0/8, lan", "\"lan\" is not an IPv4 or IPv6 address");
	check_malformed("10.0.0/8", "\"10.0.0\" is not an IPv4 or IPv6 address");
	check_malformed("10.0.0.0/33", "prefix length \"33\" of network \"10.0.0.0\" is not a number from 0 to 32");
	check_malformed("10.0.0.0/", "prefix length \"\" of network \"10.0.0.0\" is not a number from 0 to 32");
	check_malformed("10.0.0.0/-1", "prefix length \"-1\" of network \"10.0.0.0\" is not a number from 0 to 32");
	check_malformed("10.0.0.0/8/8", "prefix length \"8/8\" of network \"10.0.0.0\" is not a number from 0 to 32");
	check_malformed("::/129", "prefix length \"129\" of network \"::\" is not a number from 0 to 128");
	check_malformed("10.0.0.1/8", "network \"10.0.0.1/8\" has bits set beyond its prefix");
	check_malformed("fe80::1/10", "network \"fe80::1/10\" has bits set beyond its prefix");
	check_malformed("privates", "\"privates\" is not an IPv4 or IPv6 address");
	check_malformed("private/8", "\"private\" is not an IPv4 or IPv6 address");
	check_malformed("10.0.0.0;10.1.0.0", "\"10.0.0.0;10.1.0.0\" is not an IPv4 or IPv6 address");
	check_malformed("1111111111111111111111111111111111111111111111111111111",
					"network \"1111111111111111111111111111111111111111...\" is too long");
	for (i = 0; i < 257; i++)
		strcat(many, "1.1.1.1 ");
	check_malformed(many, "more than 256 networks");
	many[256 * 8] = '\0';
	set_guard(many, "");
	CHECK_INT(guard.blocked.count, 256, "256 networks fit");
}

int
main(void)
{
	test_defaults();
	test_reserved();
	test_words();
	test_embedded();
	test_exceptions();
	test_other();
	test_malformed();
	return check_done();
}
