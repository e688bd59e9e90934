/*
 * host_rule.h
 *		The texts by which a group says which hosts and ports it may call.
 *
 * They are about what stands in a URL, before any name is resolved: who may
 * write URLs is held to the hosts that the administrator knows.  Which address
 * a name leads to is the network guard's business (netguard.h).
 *
 * A leaf: no allocation, no errors raised, no look-ups.
 */
#ifndef RETRY_HOST_RULE_H
#define RETRY_HOST_RULE_H

#include "url.h"

#define RETRY_HOST_RULES_MAX	256 /* of one group */
#define RETRY_HOST_RULE_TEXT	(RETRY_URL_MAX_HOST + 10)	/* "*.", brackets,
															 * ":port" */

#define RETRY_HOST_PORT_DEFAULT		0	/* that of the URL's scheme */
#define RETRY_HOST_PORT_ANY			(-1)

typedef struct RetryHostRule
{
	char		host[RETRY_URL_MAX_HOST + 1];	/* as in RetryUrl; "": any */
	bool		below;			/* hosts below that name, at any depth, and
								 * not the name itself */
	int			port;			/* 1..65535, or one of the above */
} RetryHostRule;

/*
 * Reads "host", "*.domain" or "*", each with ":port", ":*" for any port, or
 * nothing for the scheme's own; a host is a name, an IPv4 address or an IPv6
 * address in brackets, as retry_url_check takes them.  False when it is none of
 * these; err says why not.
 */
extern bool retry_host_rule_parse(const char *text, RetryHostRule *rule,
								  char *err, size_t err_size);

/* Is the URL's host and port one of those that the rule means? */
extern bool retry_host_rule_matches(const RetryHostRule *rule, const RetryUrl *url);

#endif							/* RETRY_HOST_RULE_H */
