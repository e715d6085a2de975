-- Counts every change of a customer, of its addresses and of its payment methods: what is remembered of a customer
-- elsewhere has it, so that nothing older takes the place of something newer. `version` counts what events tell.
ALTER TABLE customer ADD COLUMN revision bigint NOT NULL DEFAULT 1;
