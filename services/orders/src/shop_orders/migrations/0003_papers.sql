-- An order is CONFIRMED with the ids of its parcel and its payment, and an empty id is none. An order that was confirmed
-- without them is PENDING again: the follow-up reads its run, completes it, or says what a person has to decide.
ALTER TABLE orders ADD COLUMN attention text;  -- what a person has to decide before a pending order can go on
-- Since when the orchestrator refuses to start the order's saga, and knows no run of it; null when it does not.
ALTER TABLE orders ADD COLUMN refused_since timestamptz;

UPDATE orders
SET state = 'pending', tracking_id = NULL, payment_id = NULL, follow_up_at = now(), follow_up_tries = 0
WHERE state = 'confirmed' AND (tracking_id = '' OR payment_id = '');

ALTER TABLE orders
    DROP CONSTRAINT confirmed_has_papers,
    ADD CONSTRAINT confirmed_has_papers
        CHECK (state <> 'confirmed' OR (coalesce(tracking_id, '') <> '' AND coalesce(payment_id, '') <> ''));
