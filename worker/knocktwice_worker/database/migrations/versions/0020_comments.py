"""What each table and column means, in the database itself.

Revision ID: 0020
Revises: 0018
"""

from __future__ import annotations

import re

from alembic import op

revision = "0020"
down_revision = "0018"
branch_labels = None
depends_on = None

#: What database/schema.py said when this was written. A comment that changes later needs a migration of its own.
COMMENTS = """
COMMENT ON TABLE api_keys IS 'Keys of the gateway.';
COMMENT ON COLUMN api_keys.id IS 'The part of a key that may be shown; it finds the row.';
COMMENT ON COLUMN api_keys.name IS 'The owner, as an operator named it.';
COMMENT ON COLUMN api_keys.digest IS 'An HMAC of the whole key; the key itself is kept nowhere.';
COMMENT ON COLUMN api_keys.scopes IS 'What it may do.';
COMMENT ON COLUMN api_keys.created_at IS 'When it was made.';
COMMENT ON COLUMN api_keys.expires_at IS 'Until when it is valid. NULL: for ever.';
COMMENT ON COLUMN api_keys.revoked_at IS 'When it was taken back. NULL: it was not.';
COMMENT ON COLUMN api_keys.last_used_at IS 'When it was used last, roughly.';

COMMENT ON TABLE attempts IS 'A push to one device.';
COMMENT ON COLUMN attempts.notification_id IS 'The notification.';
COMMENT ON COLUMN attempts.registration IS 'The device; erased- after the person was erased.';
COMMENT ON COLUMN attempts.state IS 'open: to be tried, or to be tried again; sent: the provider took it; rejected: it will not.';
COMMENT ON COLUMN attempts.reason IS 'Why it was rejected, or is tried again.';
COMMENT ON COLUMN attempts.provider_id IS 'The provider''s id of the push.';

COMMENT ON TABLE batches IS 'What the notifications of one message have in common.';
COMMENT ON COLUMN batches.id IS 'The id of the message; the page''s in a blast.';
COMMENT ON COLUMN batches.content IS 'The push and the SMS, or the template with its contents as they were.';
COMMENT ON COLUMN batches.plan IS 'The later steps, where they are more than one SMS that says what the content says.';
COMMENT ON COLUMN batches.category IS 'transactional, critical or marketing.';
COMMENT ON COLUMN batches.ttl IS 'How long the provider may hold the push.';
COMMENT ON COLUMN batches.reference IS 'The application''s own ids, handed back in webhooks and the history.';
COMMENT ON COLUMN batches.created_at IS 'When it was accepted.';

COMMENT ON TABLE blast_schedules IS 'Recurring blasts, as declared in a file.';
COMMENT ON COLUMN blast_schedules.name IS 'The name in the file.';
COMMENT ON COLUMN blast_schedules.definition IS 'As blasts/schedules.py has checked it.';
COMMENT ON COLUMN blast_schedules.next_at IS 'When it starts next.';
COMMENT ON COLUMN blast_schedules.last_at IS 'The time for which it was last started, or not.';
COMMENT ON COLUMN blast_schedules.outcome IS 'What came of that: a blast, or why there was none.';
COMMENT ON COLUMN blast_schedules.updated_at IS 'When it was declared last.';

COMMENT ON TABLE blasts IS 'One notification to everybody in a segment.';
COMMENT ON COLUMN blasts.id IS 'Made of the key, so that who knows one knows the other.';
COMMENT ON COLUMN blasts.key IS 'The same key starts once.';
COMMENT ON COLUMN blasts.segment IS 'The segment''s name. NULL: the filter was given with the blast.';
COMMENT ON COLUMN blasts.filter IS 'The segment''s filter as it was when the blast was started.';
COMMENT ON COLUMN blasts.message IS 'What a send_push message has beside v, id and recipients, and the params of all recipients.';
COMMENT ON COLUMN blasts.throttle_per_min IS 'Most people in a minute. NULL: as fast as it goes.';
COMMENT ON COLUMN blasts.schedule IS 'The recurring blast that it is one of. NULL: none.';
COMMENT ON COLUMN blasts.state IS 'running, paused, finished or aborted.';
COMMENT ON COLUMN blasts.reason IS 'Why it was paused or aborted.';
COMMENT ON COLUMN blasts.cursor IS 'The last person that was taken from the segment. NULL: none yet, or all.';
COMMENT ON COLUMN blasts.total IS 'How many people were taken from the segment.';
COMMENT ON COLUMN blasts.purged IS 'How many it notified of those whose pages were deleted since.';
COMMENT ON COLUMN blasts.next_at IS 'When the throttle lets the next page go.';
COMMENT ON COLUMN blasts.wake_at IS 'When the dispatcher rings: there is something to do, or a lease has ended. NULL: nothing to do.';
COMMENT ON COLUMN blasts.created_at IS 'When it was accepted.';
COMMENT ON COLUMN blasts.started_at IS 'When the first person was taken from the segment.';
COMMENT ON COLUMN blasts.expanded_at IS 'When all people were taken from the segment.';
COMMENT ON COLUMN blasts.finished_at IS 'When it ended.';

COMMENT ON TABLE dead_letters IS 'Parked messages: what nobody could process.';
COMMENT ON COLUMN dead_letters.id IS 'In the order in which they were parked.';
COMMENT ON COLUMN dead_letters.message_id IS 'The message''s id in the queue, if it had one.';
COMMENT ON COLUMN dead_letters.task IS 'The task that it was for, if it named one.';
COMMENT ON COLUMN dead_letters.reason IS 'Why it could not be processed.';
COMMENT ON COLUMN dead_letters.payload IS 'The message as it came, without people who were erased since.';
COMMENT ON COLUMN dead_letters.at IS 'When it was parked.';

COMMENT ON TABLE decisions IS 'The ledger: every decision with what was known when it was taken, for knocktwice explain.';
COMMENT ON COLUMN decisions.notification_id IS 'The notification that was decided about.';
COMMENT ON COLUMN decisions.id IS 'In the order in which they were taken.';
COMMENT ON COLUMN decisions.step IS 'The step that was decided about.';
COMMENT ON COLUMN decisions.verdict IS 'Verdict, Refusal, Delay or Note of lifecycle.py.';
COMMENT ON COLUMN decisions.inputs IS 'What the decision was based on: receipts, limits, times.';
COMMENT ON COLUMN decisions.at IS 'When it was taken.';

COMMENT ON TABLE deliveries IS 'One step of a notification, written when the step before it ends: 0 is the push, 1, 2 and so on follow it.';
COMMENT ON COLUMN deliveries.notification_id IS 'The notification.';
COMMENT ON COLUMN deliveries.step IS '0: the push; 1, 2, and so on: the steps of the plan.';
COMMENT ON COLUMN deliveries.channel IS 'push, or what the plan names, like sms.';
COMMENT ON COLUMN deliveries.state IS 'Where the step stands; lifecycle.DeliveryState.';
COMMENT ON COLUMN deliveries.reason IS 'Why it ended so, or why it waits.';
COMMENT ON COLUMN deliveries.trigger IS 'The condition under which the step is due. NULL: the push, or a first step, which has none.';
COMMENT ON COLUMN deliveries.due_at IS 'When the countdown ends; of a push, when it is to go out. NULL: a push that went out at once.';
COMMENT ON COLUMN deliveries.after_step IS 'The step whose outcome and receipts the trigger looks at.';
COMMENT ON COLUMN deliveries.steps_left IS 'How many steps of the plan may follow this one.';
COMMENT ON COLUMN deliveries.wake_at IS 'When the dispatcher rings: the end of the countdown, of a wait or of a lease. NULL: the step has ended.';
COMMENT ON COLUMN deliveries.tries IS 'How often it was tried again; of a later step, how often a sender has claimed it.';
COMMENT ON COLUMN deliveries.number IS 'The recipient''s number in E.164. NULL: not reserved yet, a push, or the person was erased.';
COMMENT ON COLUMN deliveries.sender IS 'The sending number, name or Messaging Service. NULL: that of the settings.';
COMMENT ON COLUMN deliveries.text IS 'The text; of a WhatsApp message the content template with its variables, as JSON.';
COMMENT ON COLUMN deliveries.fingerprint IS 'A hash of the text, case and spaces apart, by which repeats to one number are limited.';
COMMENT ON COLUMN deliveries.parts IS 'How many SMS parts it is paid by. NULL: no SMS.';
COMMENT ON COLUMN deliveries.counted_at IS 'When it counted against the number''s limits.';
COMMENT ON COLUMN deliveries.claimed_at IS 'When a sender claimed it last.';
COMMENT ON COLUMN deliveries.provider IS 'Which provider has it, where there are several to choose from. NULL: Twilio.';
COMMENT ON COLUMN deliveries.provider_id IS 'The provider''s id of the message.';
COMMENT ON COLUMN deliveries.provider_status IS 'The strongest report of the provider since it took the message; lifecycle.ProviderState.';
COMMENT ON COLUMN deliveries.provider_error IS 'The provider''s error code, if it is a number.';
COMMENT ON COLUMN deliveries.provider_error_text IS 'The provider''s error code if it is a word, or if the number beside it does not tell it.';
COMMENT ON COLUMN deliveries.provider_status_at IS 'When that report was made.';
COMMENT ON COLUMN deliveries.finished_at IS 'When the step ended. NULL while it is open.';
COMMENT ON COLUMN deliveries.price IS 'What the provider asks for the message. NULL: not told.';
COMMENT ON COLUMN deliveries.price_unit IS 'The currency of the price, as ISO 4217 has it.';
COMMENT ON COLUMN deliveries.reported_at IS 'When the provider''s last report came, or when we stopped waiting for it. NULL: it may still come.';
COMMENT ON COLUMN deliveries.heard_at IS 'When a report or a price was written here last.';

COMMENT ON TABLE erasures IS 'Who was erased, so that an older message that arrives late does not bring the person back.';
COMMENT ON COLUMN erasures.person IS 'A keyed hash of the application''s id of the person.';
COMMENT ON COLUMN erasures.erased_at IS 'What was said about the person until then is void.';
COMMENT ON COLUMN erasures.noted_at IS 'When it was written down; workers learn of new ones by it.';

COMMENT ON TABLE events IS 'Receipts and cancellations, each once.';
COMMENT ON COLUMN events.notification_id IS 'The notification; its own row may come later.';
COMMENT ON COLUMN events.kind IS 'delivered, clicked or cancelled.';
COMMENT ON COLUMN events.registration IS 'The device that reported it; of a later step, the provider''s id of the message. Empty: not told.';
COMMENT ON COLUMN events.step IS 'The step that was answered.';
COMMENT ON COLUMN events.at IS 'When it happened, by the clock of who reported it.';
COMMENT ON COLUMN events.received_at IS 'When it was written down.';

COMMENT ON TABLE followers IS 'Who follows what happens to notifications, and how far they have come; notifications/store/change_feed.py.';
COMMENT ON COLUMN followers.name IS 'The follower, like rollups or webhooks.';
COMMENT ON COLUMN followers.seen_until IS 'It has seen everything that happened until then.';

COMMENT ON TABLE inbound_texts IS 'What people wrote to one of our senders: that they did, and not the words.';
COMMENT ON COLUMN inbound_texts.provider_id IS 'The provider''s id of the text, by which a repeat is known.';
COMMENT ON COLUMN inbound_texts.number IS 'Who wrote, in E.164. Empty: the person was erased.';
COMMENT ON COLUMN inbound_texts.wish IS 'STOP, START or HELP. NULL: something else.';
COMMENT ON COLUMN inbound_texts.received_at IS 'When it was written down.';

COMMENT ON TABLE links IS 'Short links in messages.';
COMMENT ON COLUMN links.token IS 'The last part of the link''s address: a signature over notification, step and target.';
COMMENT ON COLUMN links.notification_id IS 'The notification whose message has the link.';
COMMENT ON COLUMN links.step IS 'The step whose message has the link.';
COMMENT ON COLUMN links.target IS 'Where it leads. NULL: nowhere any more.';
COMMENT ON COLUMN links.created_at IS 'When it was made.';

COMMENT ON TABLE notifications IS 'One message to one person, from acceptance to its end.';
COMMENT ON COLUMN notifications.id IS 'A UUIDv7 that the producer made, so that a message that comes twice is inserted once.';
COMMENT ON COLUMN notifications.batch_id IS 'The batch that it came with.';
COMMENT ON COLUMN notifications.user_id IS 'The person. NULL: the application gave devices and number with the call, or this is a duplicate.';
COMMENT ON COLUMN notifications.phone IS 'The recipient''s number in E.164, where the application gave it with the call.';
COMMENT ON COLUMN notifications.params IS 'What is filled into the texts.';
COMMENT ON COLUMN notifications.key IS 'The application''s key; the same key never notifies twice. NULL: none.';
COMMENT ON COLUMN notifications.locale IS 'Which of the template''s contents. NULL: the batch has one for all.';
COMMENT ON COLUMN notifications.state IS 'active, or how it ended; lifecycle.NotificationState.';
COMMENT ON COLUMN notifications.reason IS 'Why it ended so. NULL while it is active.';
COMMENT ON COLUMN notifications.created_at IS 'When it was accepted.';
COMMENT ON COLUMN notifications.finished_at IS 'When it ended. NULL while it is active.';

COMMENT ON TABLE opt_outs IS 'Numbers that must not be texted.';
COMMENT ON COLUMN opt_outs.number IS 'The number in E.164.';
COMMENT ON COLUMN opt_outs.source IS 'How we know: sms, provider, or what the application or an operator said.';
COMMENT ON COLUMN opt_outs.created_at IS 'Since when it must not be texted.';

COMMENT ON TABLE provider_reports IS 'Reports of providers that are not written to their deliveries yet; a repeat is the same row.';
COMMENT ON COLUMN provider_reports.provider_id IS 'The provider''s id of the message.';
COMMENT ON COLUMN provider_reports.status IS 'What is reported; lifecycle.ProviderState.';
COMMENT ON COLUMN provider_reports.notification_id IS 'The notification, where the callback''s address names it.';
COMMENT ON COLUMN provider_reports.step IS 'The step, where the callback''s address names it.';
COMMENT ON COLUMN provider_reports.error IS 'The provider''s error code, if it is a number.';
COMMENT ON COLUMN provider_reports.error_text IS 'The provider''s error code if it is a word, or if the number beside it does not tell it.';
COMMENT ON COLUMN provider_reports.price IS 'What the provider asks for the message. NULL: not told.';
COMMENT ON COLUMN provider_reports.price_unit IS 'The currency of the price, as ISO 4217 has it.';
COMMENT ON COLUMN provider_reports.at IS 'When the report was made.';
COMMENT ON COLUMN provider_reports.received_at IS 'When it was written down.';

COMMENT ON TABLE receipt_health IS 'How many pushes the apps reported as delivered, by the hour and the kind of device.';
COMMENT ON COLUMN receipt_health.hour IS 'The hour in which the pushes went out.';
COMMENT ON COLUMN receipt_health.platform IS 'android, ios, web or unknown.';
COMMENT ON COLUMN receipt_health.app_version IS 'The version of the app. Empty: not known.';
COMMENT ON COLUMN receipt_health.pushes IS 'Pushes that the provider took.';
COMMENT ON COLUMN receipt_health.delivered IS 'Of these, how many were reported as delivered.';
COMMENT ON COLUMN receipt_health.confirmed IS 'Of these, how many were reported as delivered or clicked.';

COMMENT ON TABLE rollup_slices IS 'Slices of five minutes of acceptance, which are counted as a whole.';
COMMENT ON COLUMN rollup_slices.starts_at IS 'When the slice begins.';
COMMENT ON COLUMN rollup_slices.dirty IS 'Whether something in it has changed since it was counted.';
COMMENT ON COLUMN rollup_slices.counted_at IS 'When it was counted last.';
COMMENT ON COLUMN rollup_slices.rows IS 'How many notifications were counted. Fewer the next time means that old ones were deleted.';

COMMENT ON TABLE rollups IS 'What became of notifications, counted, for knocktwice stats; docs/numbers.md defines each figure.';
COMMENT ON COLUMN rollups.day IS 'The day of acceptance, in the zone of KNOCKTWICE_SMS_DAY_ZONE.';
COMMENT ON COLUMN rollups.slice IS 'The slice it was counted in. 1970: slices that are closed for ever and have joined their day.';
COMMENT ON COLUMN rollups.template IS 'The template. Empty: none.';
COMMENT ON COLUMN rollups.blast IS 'The blast''s key. Empty: none.';
COMMENT ON COLUMN rollups.country IS 'The country of the number, as ISO 3166 has it. Empty: none.';
COMMENT ON COLUMN rollups.category IS 'transactional, critical or marketing.';
COMMENT ON COLUMN rollups.accepted IS 'Notifications, without duplicates.';
COMMENT ON COLUMN rollups.duplicates IS 'Notifications whose key had been used before.';
COMMENT ON COLUMN rollups.cancelled IS 'Notifications that the application stopped.';
COMMENT ON COLUMN rollups.failed IS 'Notifications of which nothing could be sent.';
COMMENT ON COLUMN rollups.pushed IS 'The provider took the push for at least one device.';
COMMENT ON COLUMN rollups.delivered IS 'A device reported the push as delivered or clicked.';
COMMENT ON COLUMN rollups.clicked IS 'A device reported a click.';
COMMENT ON COLUMN rollups.fell_back IS 'The push was not enough, whatever then became of the next step.';
COMMENT ON COLUMN rollups.sms_sent IS 'SMS that a provider took.';
COMMENT ON COLUMN rollups.sms_delivered IS 'SMS that were reported as delivered.';
COMMENT ON COLUMN rollups.sms_undelivered IS 'SMS that were reported as lost.';
COMMENT ON COLUMN rollups.sms_unknown IS 'SMS of which nobody can tell whether they went out.';
COMMENT ON COLUMN rollups.sms_wasted IS 'SMS that a later receipt showed to be needless.';
COMMENT ON COLUMN rollups.sms_parts IS 'Parts that the SMS are paid by.';
COMMENT ON COLUMN rollups.unpriced_parts IS 'Parts whose price no provider told.';
COMMENT ON COLUMN rollups.whatsapp_sent IS 'WhatsApp messages that the provider took.';
COMMENT ON COLUMN rollups.whatsapp_delivered IS 'WhatsApp messages that were reported as delivered or read.';
COMMENT ON COLUMN rollups.whatsapp_read IS 'WhatsApp messages that were reported as read.';
COMMENT ON COLUMN rollups.whatsapp_unknown IS 'WhatsApp messages of which nobody can tell whether they went out.';
COMMENT ON COLUMN rollups.unpriced_whatsapp IS 'WhatsApp messages whose price nobody told, without those known to be lost.';
COMMENT ON COLUMN rollups.price IS 'What providers asked for the SMS whose price is known.';
COMMENT ON COLUMN rollups.whatsapp_price IS 'What the provider asked for the WhatsApp messages whose price is known.';
COMMENT ON COLUMN rollups.reached IS 'Notifications that a device reported, or whose SMS or WhatsApp message is not known to be lost.';
COMMENT ON COLUMN rollups.suppressed IS 'By reason, how many were suppressed for it.';

COMMENT ON TABLE segments IS 'Saved filters over people.';
COMMENT ON COLUMN segments.name IS 'The name that blasts use.';
COMMENT ON COLUMN segments.filter IS 'The condition, as audience/segment_filter.py has checked it.';
COMMENT ON COLUMN segments.description IS 'For whoever reads the list.';
COMMENT ON COLUMN segments.updated_at IS 'When it was saved last.';

COMMENT ON TABLE suppressions IS 'Numbers of people who were erased and had opted out; they stay opted out.';
COMMENT ON COLUMN suppressions.number IS 'A keyed hash of the number, so that the table does not tell whose number it is.';
COMMENT ON COLUMN suppressions.created_at IS 'Since when it must not be texted.';

COMMENT ON TABLE templates IS 'What can be said, in every language.';
COMMENT ON COLUMN templates.name IS 'The name that notifications use.';
COMMENT ON COLUMN templates.definition IS 'The contents and what follows the push, as content/templates.py has checked them.';
COMMENT ON COLUMN templates.version IS 'Counts the changes, so that one can tell by which wording somebody was notified.';
COMMENT ON COLUMN templates.updated_at IS 'When it was changed last.';

COMMENT ON TABLE users IS 'A person, by the id that the application gives them.';
COMMENT ON COLUMN users.id IS 'The application''s own id of the person.';
COMMENT ON COLUMN users.created_at IS 'When the system first heard of the person.';
COMMENT ON COLUMN users.tags IS 'What the application says about the person: by name, as text, number, boolean or a list of these.';
COMMENT ON COLUMN users.locale IS 'The person''s language, like de-AT; a device''s own language comes first. NULL: not known.';
COMMENT ON COLUMN users.time_zone IS 'The person''s time zone, like Europe/Vienna; a device''s own zone comes first. NULL: not known.';
COMMENT ON COLUMN users.field_times IS 'Field by field, when it was said, removed tags too: a message that arrives late changes only older fields.';
COMMENT ON COLUMN users.updated_at IS 'When tags, locale or zone changed last.';

COMMENT ON TABLE webhook_endpoints IS 'Addresses of the application that are told what happens.';
COMMENT ON COLUMN webhook_endpoints.id IS 'The name that it was given, like ep_0123456789abcdef.';
COMMENT ON COLUMN webhook_endpoints.url IS 'The address.';
COMMENT ON COLUMN webhook_endpoints.events IS 'Which types of events it is told. Empty: all.';
COMMENT ON COLUMN webhook_endpoints.personal IS 'Whether it is told who the person is.';
COMMENT ON COLUMN webhook_endpoints.since IS 'What happened before is told only when it is replayed.';
COMMENT ON COLUMN webhook_endpoints.failures IS 'How often in a row it did not take an event.';
COMMENT ON COLUMN webhook_endpoints.failing_since IS 'Since when it has taken nothing. NULL: it works.';
COMMENT ON COLUMN webhook_endpoints.resume_at IS 'When it is tried again after a failure. NULL: at once.';
COMMENT ON COLUMN webhook_endpoints.last_error IS 'What went wrong last.';
COMMENT ON COLUMN webhook_endpoints.disabled_at IS 'Since when it is told nothing. NULL: it is told.';
COMMENT ON COLUMN webhook_endpoints.disabled_reason IS 'Why it is told nothing.';

COMMENT ON TABLE webhook_events IS 'What happened to notifications, for webhooks; each once.';
COMMENT ON COLUMN webhook_events.id IS 'In the order in which they happened to a notification.';
COMMENT ON COLUMN webhook_events.notification_id IS 'The notification.';
COMMENT ON COLUMN webhook_events.step IS 'The step; 0 also for the notification as a whole.';
COMMENT ON COLUMN webhook_events.type IS 'What happened, like push.clicked.';
COMMENT ON COLUMN webhook_events.at IS 'When it happened.';
COMMENT ON COLUMN webhook_events.data IS 'What the webhook says, without the person.';

COMMENT ON TABLE blast_pages IS 'Up to 500 people of a blast, who become one batch.';
COMMENT ON COLUMN blast_pages.id IS 'The batch''s id. The ids of its notifications lie between it and last_id.';
COMMENT ON COLUMN blast_pages.last_id IS 'The last id that belongs to the page.';
COMMENT ON COLUMN blast_pages.blast_id IS 'The blast.';
COMMENT ON COLUMN blast_pages.count IS 'How many people it had at first.';
COMMENT ON COLUMN blast_pages.users IS 'The people, NULL in place of an erased one. NULL: they have their notifications, or get none.';
COMMENT ON COLUMN blast_pages.wake_at IS 'Until when a worker has it. NULL: none has had it yet, or it is done.';
COMMENT ON COLUMN blast_pages.released_at IS 'When a worker was asked to send it last.';
COMMENT ON COLUMN blast_pages.sent_at IS 'When its notifications were written.';
COMMENT ON COLUMN blast_pages.cancelled_at IS 'When its notifications were cancelled.';

COMMENT ON TABLE devices IS 'An installation of the app that can be pushed to.';
COMMENT ON COLUMN devices.registration IS 'FCM''s address of the installation: a registration token or a Firebase installation id.';
COMMENT ON COLUMN devices.user_id IS 'Whose it is. NULL after a logout: the row stays, so that an older message cannot undo that.';
COMMENT ON COLUMN devices.platform IS 'android, ios or web. NULL: not known.';
COMMENT ON COLUMN devices.notifications_enabled IS 'Whether the phone shows notifications of the app.';
COMMENT ON COLUMN devices.locale IS 'The device''s language, like de-AT. NULL: not known.';
COMMENT ON COLUMN devices.time_zone IS 'The device''s time zone, like Europe/Vienna. NULL: not known.';
COMMENT ON COLUMN devices.app_version IS 'The version of the app. NULL: not known.';
COMMENT ON COLUMN devices.changed_at IS 'When the application said the latest that is written here; what was said before is ignored.';
COMMENT ON COLUMN devices.last_seen_at IS 'When it was registered or reported something last, to the day. A device not seen for long is deleted.';

COMMENT ON TABLE phones IS 'A person''s phone number, and whether marketing may be texted to it.';
COMMENT ON COLUMN phones.user_id IS 'The person.';
COMMENT ON COLUMN phones.number IS 'The number in E.164, like +16505550100. NULL: none, or taken away, which an older message cannot undo.';
COMMENT ON COLUMN phones.region IS 'The country of the number, as ISO 3166 has it. NULL: it belongs to none, like +800.';
COMMENT ON COLUMN phones.changed_at IS 'When the application said the number; what was said before is ignored.';
COMMENT ON COLUMN phones.consented_at IS 'Since when the person agrees to marketing. NULL: not, or no longer.';
COMMENT ON COLUMN phones.consent_source IS 'Who says that the person agreed, or that they withdrew it.';
COMMENT ON COLUMN phones.consent_changed_at IS 'When consent was last given or withdrawn; what was said before is ignored.';

COMMENT ON TABLE webhook_deliveries IS 'An event on its way to an endpoint.';
COMMENT ON COLUMN webhook_deliveries.endpoint_id IS 'The endpoint.';
COMMENT ON COLUMN webhook_deliveries.event_id IS 'The event.';
COMMENT ON COLUMN webhook_deliveries.notification_id IS 'The notification of the event; events of one notification go out one after another.';
COMMENT ON COLUMN webhook_deliveries.tries IS 'How often it was sent.';
COMMENT ON COLUMN webhook_deliveries.next_at IS 'When it is to be sent, or when its sender''s lease ends. NULL: delivered, or given up.';
COMMENT ON COLUMN webhook_deliveries.delivered_at IS 'When the endpoint took it.';
COMMENT ON COLUMN webhook_deliveries.error IS 'What went wrong last.';
"""


def upgrade() -> None:
    """Write them. COMMENT ON holds up neither readers nor writers of a table."""
    op.execute(COMMENTS)


def downgrade() -> None:
    """Take them away."""
    op.execute(re.sub(r"IS '.*';", "IS NULL;", COMMENTS))
