/*
 * guc.h
 *		The settings of retry, retry.*, as C variables.
 *
 * Each is defined, documented and checked in guc.c; units are in the names or
 * comments here.  Strings belong to the GUC machinery: read them, never keep
 * the pointer across a reload.
 */
#ifndef RETRY_GUC_H
#define RETRY_GUC_H

#include "netguard.h"

extern int	retry_dispatchers;	/* per database, reload */
extern int	retry_sql_workers;	/* per database, reload */
extern int	retry_max_in_flight;	/* per dispatcher, postmaster */
extern int	retry_lane_max_in_flight;	/* per lane, reload */
extern int	retry_max_lanes;	/* kept in memory per dispatcher, reload */
extern int	retry_max_queued;	/* entries in memory per dispatcher, reload */
extern int	retry_max_request_bytes;	/* bytes, superuser */
extern int	retry_max_response_bytes;	/* bytes kept of a response, reload */
extern int	retry_poll_interval_ms; /* reload */
extern int	retry_alarm_interval_ms;	/* reload */
extern int	retry_retention_s;	/* seconds of finished history, reload; at
								 * most 30 days */
extern int	retry_dead_letter_retention_s;	/* seconds, reload */
extern int	retry_audit_retention_s;	/* seconds, reload */
extern bool retry_enabled;		/* superuser, per database */
extern char *retry_databases;	/* '*' or a list of names, reload */
extern char *retry_blocked_networks;	/* CIDR list, reload */
extern char *retry_allowed_networks;	/* CIDR list, reload */
extern RetryNetguard retry_networks;	/* both, read */
extern bool retry_https_only;	/* reload */
extern char *retry_proxy;		/* reload */
extern char *retry_ca_bundle;	/* path, reload */
extern int	retry_log_level;	/* elevel of routine messages, reload */

/* Defines them all and reserves the prefix; from _PG_init. */
extern void retry_guc_init(bool preloading);

#endif							/* RETRY_GUC_H */
