package millrace.peers.job;

/** What the job needs of one payment. Fields are public and there is a plain constructor, as frameworks like it. */
public final class Payment {
    public String paymentId;
    public String customerId;
    public long eventMs;
    public long amountCents;

    public Payment() {}

    public Payment(String paymentId, String customerId, long eventMs, long amountCents) {
        this.paymentId = paymentId;
        this.customerId = customerId;
        this.eventMs = eventMs;
        this.amountCents = amountCents;
    }
}
