/*
 * netguard.c
 *	  Parses lists of networks and judges addresses by them.
 *
 * The judgement is made in curl's callbacks, so it must not allocate or raise
 * errors, and it is made once per attempt, so it is a plain scan over a few
 * rules.  IPv6 offers many ways to write an IPv4 address inside another one;
 * a guard that forgets one of them guards nothing, so the inner address is
 * taken out first and both are judged.
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "netguard.h"

static bool
rule_matches(const RetryNetguardRule *rule, const unsigned char *address, bool ipv6)
{
	int			whole = rule->bits / 8;
	int			rest = rule->bits % 8;

	if (rule->ipv6 != ipv6)
		return false;
	if (memcmp(rule->address, address, whole) != 0)
		return false;
	return rest == 0 ||
		((rule->address[whole] ^ address[whole]) & (0xff << (8 - rest)) & 0xff) == 0;
}

static const RetryNetguardRule *
find_rule(const RetryNetguardList *list, const unsigned char *address, bool ipv6)
{
	int			i;

	for (i = 0; i < list->count; i++)
		if (rule_matches(&list->rules[i], address, ipv6))
			return &list->rules[i];
	return NULL;
}

static void
rule_text(const RetryNetguardRule *rule, char *text, size_t size)
{
	char		address[INET6_ADDRSTRLEN] = "";

	if (text == NULL || size == 0)
		return;
	inet_ntop(rule->ipv6 ? AF_INET6 : AF_INET, rule->address, address, sizeof(address));
	snprintf(text, size, "%s/%d", address, rule->bits);
}

/* Judges one address of one family: an exception beats a block. */
static bool
address_allowed(const RetryNetguard *guard, const unsigned char *address, bool ipv6,
				char *rule, size_t rule_size)
{
	const RetryNetguardRule *blocked = find_rule(&guard->blocked, address, ipv6);

	if (blocked == NULL || find_rule(&guard->allowed, address, ipv6) != NULL)
		return true;
	rule_text(blocked, rule, rule_size);
	return false;
}

/* RFC 6052: where the IPv4 address stands, by the length of the NAT64's prefix. */
static const int local_nat64[][4] = {
	{12, 13, 14, 15},			/* 96 bits, as in the range for all */
	{6, 7, 9, 10},				/* 48: byte 8 is always 0 */
	{7, 9, 10, 11},				/* 56 */
	{9, 10, 11, 12}				/* 64 */
};

/*
 * A NAT64 of local use, 64:ff9b:1::/48, may have any of these prefixes, and what
 * follows the address is then 0: whatever may be meant is to be judged.
 */
static int
local_nat64_ipv4(const unsigned char *a, unsigned char v4[][4])
{
	static const unsigned char zero[16] = {0};
	int			count = 0;

	for (int i = 0; i < (int) lengthof(local_nat64); i++)
	{
		int			last = local_nat64[i][3];

		if (memcmp(a + last + 1, zero, 15 - last) != 0 || (i > 0 && a[8] != 0))
			continue;
		for (int j = 0; j < 4; j++)
			v4[count][j] = a[local_nat64[i][j]];
		count++;
	}
	return count;
}

/*
 * The IPv4 addresses that an IPv6 address may lead to, at most 4:
 *		::ffff:a.b.c.d		IPv4-mapped
 *		::ffff:0:a.b.c.d	IPv4-translated (RFC 2765)
 *		::a.b.c.d			IPv4-compatible (deprecated, still parsed); :: and
 *							::1 are addresses of their own
 *		64:ff9b::a.b.c.d	NAT64, and 64:ff9b:1::/48, its local-use range
 *		2002:aabb:ccdd::	6to4
 *		2001:0:...:~a.b.c.d	Teredo, the client's address inverted
 *		*:0:5efe:a.b.c.d	ISATAP, in any network
 */
static int
embedded_ipv4(const unsigned char *a, unsigned char v4[][4])
{
	static const unsigned char zero[12] = {0};
	static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
	static const unsigned char translated[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0};
	static const unsigned char nat64[12] = {0, 0x64, 0xff, 0x9b};
	static const unsigned char nat64_local[6] = {0, 0x64, 0xff, 0x9b, 0, 1};
	static const unsigned char teredo[4] = {0x20, 0x01, 0, 0};
	static const unsigned char isatap[3] = {0, 0x5e, 0xfe};
	int			i;

	if (memcmp(a, nat64_local, 6) == 0)
		return local_nat64_ipv4(a, v4);
	if (memcmp(a, mapped, 12) == 0 || memcmp(a, translated, 12) == 0 || memcmp(a, nat64, 12) == 0 ||
		((a[8] & ~2) == 0 && memcmp(a + 9, isatap, 3) == 0))
		memcpy(v4[0], a + 12, 4);
	else if (memcmp(a, zero, 12) == 0 &&
			 (a[12] != 0 || a[13] != 0 || a[14] != 0 || a[15] > 1))
		memcpy(v4[0], a + 12, 4);
	else if (a[0] == 0x20 && a[1] == 0x02)
		memcpy(v4[0], a + 2, 4);
	else if (memcmp(a, teredo, 4) == 0)
	{
		for (i = 0; i < 4; i++)
			v4[0][i] = a[12 + i] ^ 0xff;
	}
	else
		return 0;
	return 1;
}

static bool
ipv6_allowed(const RetryNetguard *guard, const unsigned char *address,
			 char *rule, size_t rule_size)
{
	unsigned char v4[lengthof(local_nat64)][4];
	int			count;

	if (!address_allowed(guard, address, true, rule, rule_size))
		return false;

	/* not excused by an IPv6 exception: ::/0 must not open 169.254.169.254 */
	count = embedded_ipv4(address, v4);
	for (int i = 0; i < count; i++)
	{
		if (!address_allowed(guard, v4[i], false, rule, rule_size))
			return false;
	}
	return true;
}

bool
retry_netguard_check(const RetryNetguard *guard, const struct sockaddr *address,
					 char *rule, size_t rule_size)
{
	if (address->sa_family == AF_INET)
	{
		struct sockaddr_in in;

		memcpy(&in, address, sizeof(in));
		return address_allowed(guard, (const unsigned char *) &in.sin_addr, false,
							   rule, rule_size);
	}
	if (address->sa_family == AF_INET6)
	{
		struct sockaddr_in6 in6;

		memcpy(&in6, address, sizeof(in6));
		return ipv6_allowed(guard, (const unsigned char *) &in6.sin6_addr,
							rule, rule_size);
	}
	if (rule != NULL && rule_size > 0)
		snprintf(rule, rule_size, "address family %d", (int) address->sa_family);
	return false;
}

/* Names that are the machine itself, whatever a name server says (RFC 6761). */
static bool
is_localhost(const char *name)
{
	static const char localhost[] = "localhost";
	size_t		len = strlen(name);

	if (len > 0 && name[len - 1] == '.')
		len--;
	if (len < sizeof(localhost) - 1)
		return false;
	len -= sizeof(localhost) - 1;
	return pg_strncasecmp(name + len, localhost, sizeof(localhost) - 1) == 0 &&
		(len == 0 || name[len - 1] == '.');
}

/* It has an address of each kind: one that may be reached will do. */
static bool
localhost_allowed(const RetryNetguard *guard, char *rule, size_t rule_size)
{
	static const unsigned char ipv4[4] = {127, 0, 0, 1};
	static const unsigned char ipv6[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};

	return address_allowed(guard, ipv6, true, NULL, 0) ||
		address_allowed(guard, ipv4, false, rule, rule_size);
}

bool
retry_netguard_check_text(const RetryNetguard *guard, const char *text,
						  bool *literal, char *rule, size_t rule_size)
{
	char		copy[INET6_ADDRSTRLEN];
	unsigned char address[16];
	size_t		len;

	*literal = is_localhost(text);
	if (*literal)
		return localhost_allowed(guard, rule, rule_size);
	if (text[0] == '[')
		text++;
	/* a zone does not change which network the address is in */
	len = strcspn(text, "]%");
	if (len >= sizeof(copy))
		return true;
	memcpy(copy, text, len);
	copy[len] = '\0';

	if (inet_pton(AF_INET, copy, address) == 1)
	{
		*literal = true;
		return address_allowed(guard, address, false, rule, rule_size);
	}
	if (inet_pton(AF_INET6, copy, address) == 1)
	{
		*literal = true;
		return ipv6_allowed(guard, address, rule, rule_size);
	}
	return true;
}

/* True when no bit beyond the prefix is set. */
static bool
host_bits_clear(const RetryNetguardRule *rule)
{
	int			bytes = rule->ipv6 ? 16 : 4;
	int			i;

	for (i = 0; i < bytes; i++)
	{
		int			covered = rule->bits - i * 8;

		if (covered >= 8)
			continue;
		if (rule->address[i] & (0xff >> Max(covered, 0)))
			return false;
	}
	return true;
}

/* One entry of len bytes; the reason why not in err. */
static bool
parse_rule(const char *entry, size_t len, RetryNetguardRule *rule,
		   char *err, size_t err_size)
{
	char		copy[RETRY_NETGUARD_RULE_TEXT];
	char	   *slash;
	int			max_bits;

	memset(rule, 0, sizeof(*rule));
	if (len >= sizeof(copy))
	{
		snprintf(err, err_size, "network \"%.40s...\" is too long", entry);
		return false;
	}
	memcpy(copy, entry, len);
	copy[len] = '\0';
	slash = strchr(copy, '/');
	if (slash != NULL)
		*slash = '\0';

	rule->ipv6 = strchr(copy, ':') != NULL;
	max_bits = rule->ipv6 ? 128 : 32;
	if (inet_pton(rule->ipv6 ? AF_INET6 : AF_INET, copy, rule->address) != 1)
	{
		snprintf(err, err_size, "\"%s\" is not an IPv4 or IPv6 address", copy);
		return false;
	}
	rule->bits = max_bits;
	if (slash != NULL)
	{
		const char *digits = slash + 1;
		size_t		count = strspn(digits, "0123456789");

		if (count == 0 || count > 3 || digits[count] != '\0' || atoi(digits) > max_bits)
		{
			snprintf(err, err_size, "prefix length \"%s\" of network \"%s\" is not a number from 0 to %d",
					 digits, copy, max_bits);
			return false;
		}
		rule->bits = atoi(digits);
	}
	if (!host_bits_clear(rule))
	{
		snprintf(err, err_size, "network \"%s/%d\" has bits set beyond its prefix",
				 copy, rule->bits);
		return false;
	}
	return true;
}

/* Words that stand for networks; see netguard.h. */
static const struct
{
	const char *name;
	const char *networks;
}			words[] = {
	{"reserved", RETRY_NETGUARD_RESERVED},
	{"metadata", RETRY_NETGUARD_METADATA},
	{"private", RETRY_NETGUARD_PRIVATE},
	{"non-public", RETRY_NETGUARD_RESERVED ", " RETRY_NETGUARD_METADATA ", " RETRY_NETGUARD_PRIVATE}
};

/* What a word of len bytes stands for; NULL: it is none. */
static const char *
word_networks(const char *entry, size_t len)
{
	for (int i = 0; i < (int) lengthof(words); i++)
	{
		if (strlen(words[i].name) == len && pg_strncasecmp(entry, words[i].name, len) == 0)
			return words[i].networks;
	}
	return NULL;
}

/* Adds the entries of a text to the list; words only where they are allowed. */
static bool
add_rules(const char *text, bool with_words, RetryNetguardList *list, char *err, size_t err_size)
{
	static const char separators[] = ", \t\r\n";

	for (;;)
	{
		const char *meant;
		size_t		len;

		text += strspn(text, separators);
		len = strcspn(text, separators);
		if (len == 0)
			return true;
		meant = with_words ? word_networks(text, len) : NULL;
		if (meant != NULL)
		{
			if (!add_rules(meant, false, list, err, err_size))
				return false;
		}
		else if (list->count == RETRY_NETGUARD_MAX_RULES)
		{
			snprintf(err, err_size, "more than %d networks", RETRY_NETGUARD_MAX_RULES);
			return false;
		}
		else if (!parse_rule(text, len, &list->rules[list->count], err, err_size))
			return false;
		else
			list->count++;
		text += len;
	}
}

bool
retry_netguard_parse(const char *text, RetryNetguardList *out,
					 char *err, size_t err_size)
{
	RetryNetguardList list;

	list.count = 0;
	if (!add_rules(text, true, &list, err, err_size))
		return false;
	out->count = list.count;
	memcpy(out->rules, list.rules, sizeof(list.rules[0]) * list.count);
	return true;
}
