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
 * 6to4, Teredo) is judged as both.
 */
#ifndef RETRY_NETGUARD_H
#define RETRY_NETGUARD_H

struct sockaddr;

#define RETRY_NETGUARD_MAX_RULES	256 /* in each list */
#define RETRY_NETGUARD_RULE_TEXT	50	/* an IPv6 network and its prefix */

/* loopback, unspecified, link-local, multicast, reserved */
#define RETRY_NETGUARD_DEFAULT_BLOCKED \
	"0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 240.0.0.0/4, " \
	"::/128, ::1/128, fe80::/10, ff00::/8"

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
 * "fd00::/8", or a bare address for that address alone.  Bits beyond the
 * prefix must be zero.  An empty text is an empty list.  False on the first
 * malformed entry or the 257th; err then names it, and *out is unchanged.
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
 * is not an address is allowed, for its resolution will be checked.
 */
extern bool retry_netguard_check_text(const RetryNetguard *guard,
									  const char *text, bool *literal,
									  char *rule, size_t rule_size);

#endif							/* RETRY_NETGUARD_H */
