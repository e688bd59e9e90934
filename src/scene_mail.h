/*
 * scene_mail.h
 *		Scenes that send mail: those of channels of the kind email.
 *
 * What they say is set by the channel's trigger alone, in a column that nobody
 * may write, so no scene or task reaches a mail server otherwise.
 */
#ifndef RETRY_SCENE_MAIL_H
#define RETRY_SCENE_MAIL_H

#include "config.h"
#include "request.h"

/* Column mail of retry.scene. */
typedef struct RetrySceneMail
{
	char	   *url;			/* of the server */
	char	   *user;			/* NULL: it does not sign in */
	char	   *from;			/* mailboxes */
	int			to_count;
	char	  **to;
} RetrySceneMail;

/*
 * From the columns of a scene's row, in the current memory context; scene->mail
 * stays NULL when it sends none.  False when the column makes no sense.
 */
extern bool retry_scene_read_mail(const Datum *values, const bool *isnull, RetryScene *scene);

/*
 * Makes the mail of a task, whose body is in the request, and which has had this
 * id since time "at", in the current memory context.  False, with prepared->why,
 * when the body is none that says what to send.
 */
extern bool retry_scene_mail_write(const RetryScene *scene, const pg_uuid_t *id, TimestampTz at,
								   RetryPrepared *prepared);

#endif							/* RETRY_SCENE_MAIL_H */
