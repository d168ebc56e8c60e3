package millrace.peers.flink;

import millrace.peers.job.Windows;

/** A payment with its features, and then its score. */
public final class ScoredPayment {
    public String paymentId;
    public String customerId;
    public double[] features = new double[Windows.FEATURES];
    public float score;
}
