/*
 * netguard.h
 *	  Which network addresses a task may reach.
 *
 * Tasks carry URLs that users write, and the server that sends them sits in a
 * trusted place: without a guard any user could read the cloud's metadata
 * service or the database host's own ports.  The check runs on the address
 * that is about to be connected to, after name resolution, so a name that
 * changes its address between two look-ups gains nothing.
 *
 * A leaf: no allocation, no clock, no errors raised.  An address that carries
 * an IPv4 address inside an IPv6 one (IPv4-mapped and -compatible, NAT64,
 * 6to4, Teredo, ISATAP) is judged as both.
 */
#ifndef RETRY_NETGUARD_H
#define RETRY_NETGUARD_H

struct sockaddr;

#define RETRY_NETGUARD_MAX_RULES	256 /* in each list */
#define RETRY_NETGUARD_RULE_TEXT	50	/* an IPv6 network and its prefix */

/*
 * Words that a list may have for networks.
 *
 * "reserved": where no receiver is, by IANA's registries of special addresses
 * and of IPv6 space: this host, loopback, link-local, protocol assignments,
 * documentation, relays of 6to4, benchmarks, multicast, and all that is not
 * given out.  Of the networks that contain IPv4 addresses those are missing in
 * which an address is judged by the one that it contains.
 *
 * "metadata": services of clouds for their own machines, at addresses that are
 * not reserved: Alibaba's, Azure's, Amazon's and Google's by IPv6.
 *
 * "private": networks of an organisation of its own, shared ones of carriers and
 * container networks (100.64.0.0/10) and the former site-local ones included.
 *
 * "non-public": all three.
 */
#define RETRY_NETGUARD_RESERVED \
	"0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 192.0.0.0/24, 192.0.2.0/24, 192.88.99.0/24, " \
	"198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/4, 240.0.0.0/4, " \
	"::/128, ::1/128, ::/96, 100::/8, 200::/7, 400::/6, 800::/5, 1000::/4, 2001::/23, " \
	"2001:db8::/32, 3fff::/20, 4000::/2, 8000::/2, c000::/3, e000::/4, f000::/5, f800::/6, " \
	"fe00::/9, fe80::/10, ff00::/8"
#define RETRY_NETGUARD_METADATA \
	"100.100.100.200/32, 168.63.129.16/32, fd00:ec2::/32, fd20:ce::254/128"
#define RETRY_NETGUARD_PRIVATE \
	"10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16, fc00::/7, fec0::/10"

#define RETRY_NETGUARD_DEFAULT_BLOCKED	"reserved, metadata"

typedef struct RetryNetguardRule
{
	unsigned char address[16];	/* network byte order; IPv4 uses the first 4 */
	unsigned char bits;			/* prefix length */
	bool		ipv6;
} RetryNetguardRule;

typedef struct RetryNetguardList
{
	int			count;
	RetryNetguardRule rules[RETRY_NETGUARD_MAX_RULES];
} RetryNetguardList;

typedef struct RetryNetguard
{
	RetryNetguardList blocked;
	RetryNetguardList allowed;	/* exceptions from blocked */
} RetryNetguard;

/*
 * Parses a list of networks separated by commas or spaces: "10.0.0.0/8",
 * "fd00::/8", a bare address for that address alone, or one of the words above.
 * Bits beyond the prefix must be zero.  An empty text is an empty list.  False on the first
 * malformed entry or the 257th network; err then names it, and *out is unchanged.
 */
extern bool retry_netguard_parse(const char *text, RetryNetguardList *out,
								 char *err, size_t err_size);

/*
 * True when the address may be reached.  When not, rule (of at least
 * RETRY_NETGUARD_RULE_TEXT bytes; may be NULL) gets the blocked network it is
 * in, as text.  Families other than IPv4 and IPv6 are never allowed.
 */
extern bool retry_netguard_check(const RetryNetguard *guard,
								 const struct sockaddr *address,
								 char *rule, size_t rule_size);

/*
 * The same for a literal address in text form ("127.0.0.1", "::1", with or
 * without brackets or a zone).  *literal tells whether it was one; a text that
 * is not an address is allowed, for its resolution will be checked.  The names
 * localhost and *.localhost count as the addresses that they always have, and
 * are allowed when one of them is.
 */
extern bool retry_netguard_check_text(const RetryNetguard *guard,
									  const char *text, bool *literal,
									  char *rule, size_t rule_size);

#endif							/* RETRY_NETGUARD_H */
