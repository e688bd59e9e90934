/*
 * http_settings.h
 *		The settings retry.* that steer the HTTP client, in the client's terms.
 *
 * Dispatchers and sessions have a client each, and what an administrator
 * forbids must hold for both; so the settings are read in one place, and the
 * client itself knows nothing of the server's settings.
 */
#ifndef RETRY_HTTP_SETTINGS_H
#define RETRY_HTTP_SETTINGS_H

#include "http.h"

/*
 * Zeroes the options and fills in what the settings of now say; limits on
 * transfers and connections are the caller's to add.  The options point into
 * the settings: use them at once.
 */
extern void retry_http_settings(RetryHttpOptions *options);

#endif							/* RETRY_HTTP_SETTINGS_H */
