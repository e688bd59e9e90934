/*
 * http_settings.c
 *		The settings retry.* that steer the HTTP client, in the client's terms.
 *
 * See http_settings.h for why this is apart from the client and from those
 * who use it.
 */
#include "postgres.h"

#include "guc.h"
#include "http_settings.h"

void
retry_http_settings(RetryHttpOptions *options)
{
	memset(options, 0, sizeof(*options));
	options->max_response_bytes = retry_max_response_bytes > 0 ? retry_max_response_bytes : -1;
	options->proxy = retry_proxy;
	options->ca_bundle = retry_ca_bundle;
	options->netguard = &retry_networks;
}
