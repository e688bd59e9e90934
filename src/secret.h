/*
 * secret.h
 *		Secrets of groups, as those who fill them into requests need them.
 *
 * retry.secret is read straight from the heap; its values get into memory of
 * the process that sends, and nowhere else.  Nothing here ever puts a value
 * into a message.
 */
#ifndef RETRY_SECRET_H
#define RETRY_SECRET_H

#include "datatype/timestamp.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "secret_ref.h"
#include "sign.h"

#define RETRY_SECRET_MAX_BYTES	8192	/* of a value that is no certificate */
#define RETRY_SECRET_MAX_VALUES 8	/* of one secret that are in force at once */

/* Columns of retry.secret. */
enum
{
	Secret_group_id, Secret_name, Secret_set_at, Secret_signs_until, Secret_signs,
	Secret_certificate, Secret_value, Secret_natts
};

/* One value of a secret. */
typedef struct RetrySecret
{
	int32		group_id;
	char		name[RETRY_SECRET_NAME_MAX + 1];
	TimestampTz set_at;
	TimestampTz signs_until;	/* DT_NOEND: it is the current one */
	RetrySignKey key;			/* len 0: it does not sign */
	bool		certificate;	/* a client certificate and its key */
	char	   *value;
	int			value_len;
} RetrySecret;

/* Values by group and name, the newest of each first. */
typedef struct RetrySecrets
{
	int			count;
	int			room;
	RetrySecret *list;
} RetrySecrets;

/* An empty list in the current memory context, which must be that of all calls for it. */
extern RetrySecrets *retry_secrets_create(void);

/* Adds a copy of a row; a row that no function wrote (a bad name) is passed over. */
extern void retry_secrets_add(RetrySecrets *secrets, const Datum *values, const bool *isnull);

/* After the last was added, before anything is looked up. */
extern void retry_secrets_sort(RetrySecrets *secrets);

/*
 * Those of one group, read with this snapshot, sorted, in the current memory
 * context.  Waits for locks; raises only what table access raises.
 */
extern RetrySecrets *retry_secrets_of_group(int32 group_id, Snapshot snapshot);

/*
 * The values of a secret, the current one first; NULL when it is not set.
 * "count" is how many follow each other from there.
 */
extern const RetrySecret *retry_secrets_find(const RetrySecrets *secrets, int32 group_id,
											 const char *name, int name_len, int *count);

/* Does a value of the headers name a secret? */
extern bool retry_headers_name_secrets(Jsonb *headers);

/*
 * The headers with the current values of the secrets that they name, in the
 * current memory context; the headers themselves when they name none.  NULL
 * when one is not set, or is a client certificate, which is of no use there; its
 * name is copied to "missing" then.
 */
extern Jsonb *retry_headers_fill(Jsonb *headers, const RetrySecrets *secrets, int32 group_id,
								 char **missing);

#endif							/* RETRY_SECRET_H */
