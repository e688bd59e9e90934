/*
 * status_list.h
 *		Lists of HTTP statuses and of kinds of errors, as scenes name them.
 *
 * '200-299,409' and 'tls,dns,40001': what a scene counts as success, and what
 * it never repeats.  A list is read when its scene is written (to refuse what
 * makes no sense) and when a dispatcher copies the scene; asked it is for
 * every answer, so what is kept is a set of bits.
 *
 * A leaf: nothing is allocated, and nothing fails but the two readers.  The
 * including file includes postgres.h (or c.h) first.
 */
#ifndef RETRY_STATUS_LIST_H
#define RETRY_STATUS_LIST_H

#include "cron.h"				/* RetryParseError */

#define RETRY_STATUS_MIN	100
#define RETRY_STATUS_MAX	599

/* Bytes of either list's text, at most. */
#define RETRY_STATUS_LIST_SIZE	4000

/* A set of statuses; all zero is the empty set. */
typedef struct RetryStatusSet
{
	uint32		bits[(RETRY_STATUS_MAX - RETRY_STATUS_MIN) / 32 + 1];
} RetryStatusSet;

/* What kind of failure an attempt ended with, as far as scenes can name it. */
typedef enum RetryErrorClass
{
	RETRY_CLASS_NONE,			/* no error, or one that has no name here */
	RETRY_CLASS_DNS,
	RETRY_CLASS_CONNECT,
	RETRY_CLASS_CONNECT_TIMEOUT,
	RETRY_CLASS_TLS,
	RETRY_CLASS_TIMEOUT,
	RETRY_CLASS_CLOSED,
	RETRY_CLASS_MALFORMED,
	RETRY_CLASSES
} RetryErrorClass;

#define RETRY_ERROR_SET_STATES	32	/* SQLSTATEs in a list */

/* A set of classes and of SQLSTATEs (as ereport encodes them). */
typedef struct RetryErrorSet
{
	uint32		classes;		/* 1 << RetryErrorClass */
	int			nstates;
	int			states[RETRY_ERROR_SET_STATES];
} RetryErrorSet;

/*
 * Reads numbers from 100 to 599 and ranges of them, separated by commas, with
 * blanks wherever; a text of nothing but blanks is the empty set.  False, with
 * *err telling the part that is wrong, for anything else; *set is then
 * undefined.
 */
extern bool retry_status_list_parse(const char *text, RetryStatusSet *set, RetryParseError *err);

/* Is the status in the set?  Any number may be asked. */
extern bool retry_status_set_has(const RetryStatusSet *set, int status);

/*
 * Reads names of classes (in small letters) and SQLSTATEs (five digits and
 * capitals), likewise.
 */
extern bool retry_error_list_parse(const char *text, RetryErrorSet *set, RetryParseError *err);

/* Is the class, or the SQLSTATE (0: none), in the set? */
extern bool retry_error_set_has(const RetryErrorSet *set, RetryErrorClass error_class, int sqlstate);

/* The name of a class, constant; "" for RETRY_CLASS_NONE. */
extern const char *retry_error_class_name(RetryErrorClass error_class);

#endif							/* RETRY_STATUS_LIST_H */
